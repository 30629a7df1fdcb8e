"""Create: from a request to a stored model (modelfile-and-create 4, http-api 14).

``checks``, ``origin``, ``kinds``, ``split``, ``info``, ``layers``, ``detection``, ``texts`` and
``config`` decide and do no I/O; ``builtin_templates`` reads the files of ``templates``;
``weights``, ``space``, ``copying`` and ``disk`` use the disk; ``apply`` is the shell that goes
through the stages.
"""
