"""Who gets a runner, when a model is loaded, and which one makes room.

``core`` decides (no I/O, no clock), ``shell`` carries it out under trio. ``options`` resolves a
request's options, ``spec`` says what a model needs, ``sizing`` turns that into bytes and a launch.
"""
