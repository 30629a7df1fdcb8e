"""From a template's text to its tree (prompting 2.2). Pure."""

from __future__ import annotations

from collections.abc import Container
from typing import NoReturn, TypeAlias

from ollamad.gotemplate import nodes
from ollamad.gotemplate.errors import TemplateSyntaxError
from ollamad.gotemplate.lexer import Kind, Token, tokens
from ollamad.gotemplate.numbers import parse_number
from ollamad.gotemplate.quoting import quote, unquoted

#: How deep parentheses and control structures may be nested (``else if`` nests too).
MAX_NESTING = 100

_OPERANDS = frozenset(
    (
        Kind.BOOL,
        Kind.DOT,
        Kind.FIELD,
        Kind.IDENTIFIER,
        Kind.NIL,
        Kind.NUMBER,
        Kind.OPEN_PAREN,
        Kind.STRING,
        Kind.VARIABLE,
    )
)
_Control: TypeAlias = nodes.IfNode | nodes.RangeNode | nodes.WithNode
_CONTROLS: dict[str, type[_Control]] = {
    "if": nodes.IfNode,
    "range": nodes.RangeNode,
    "with": nodes.WithNode,
}
_CONSTANTS = (
    nodes.BoolNode,
    nodes.DotNode,
    nodes.NilNode,
    nodes.NumberNode,
    nodes.StringNode,
)


def parse_text(
    text: str, functions: Container[str]
) -> tuple[nodes.ListNode, dict[str, nodes.ListNode]]:
    """The tree of ``text`` and those of the templates that it defines.

    ``functions`` are the names that may be called. Raises TemplateSyntaxError.
    """
    parser = _Parser(text, functions)
    try:
        return parser.whole()
    except RecursionError:
        raise TemplateSyntaxError(parser.located("nested too deeply")) from None


class _Ending:
    """``{{end}}`` or ``{{else}}``: where a list stops."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __str__(self) -> str:
        return "{{" + self.word + "}}"


class _Parser:
    def __init__(self, text: str, functions: Container[str]) -> None:
        self._text = text
        self._functions = functions
        self._tokens = list(tokens(text))
        self._next = 0
        self._furthest = 0
        self._definitions: dict[str, nodes.ListNode] = {}
        self._variables = ["$"]
        self._range_depth = 0
        self._nesting = 0
        #: Where the action began that is being read, to say so in an error on another line.
        self._action_at: int | None = None

    # --- tokens ---------------------------------------------------------------------------------

    def _peek(self) -> Token:
        self._furthest = max(self._furthest, self._next)
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._peek()
        # The last token stays: whoever goes on after the end sees the end again.
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _peek_past_space(self) -> Token:
        while self._peek().kind is Kind.SPACE:
            self._take()
        return self._peek()

    def _take_past_space(self) -> Token:
        self._peek_past_space()
        return self._take()

    def _expect(self, kind: Kind, context: str) -> Token:
        token = self._take_past_space()
        if token.kind is not kind:
            self._unexpected(token, context)
        return token

    # --- errors ---------------------------------------------------------------------------------

    def _line(self, position: int) -> int:
        return self._text.count("\n", 0, position) + 1

    def located(self, message: str) -> str:
        return f"template: :{self._line(self._tokens[self._furthest].position)}: {message}"

    def _fail(self, message: str) -> NoReturn:
        raise TemplateSyntaxError(self.located(message))

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind is Kind.ERROR:
            self._fail(token.value + self._started_elsewhere(token))
        if token.kind is Kind.EOF:
            shown = "EOF"
        elif token.kind in (Kind.KEYWORD, Kind.DOT, Kind.NIL):
            shown = f"<{token.value}>"
        elif len(token.value.encode("utf-8", "surrogatepass")) > 10:
            shown = quote(token.value[:10]) + "..."
        else:
            shown = quote(token.value)
        self._fail(f"unexpected {shown} in {context}")

    def _started_elsewhere(self, token: Token) -> str:
        if self._action_at is None:
            return ""
        line = self._line(self._action_at)
        if line == self._line(token.position):
            return ""
        action = "" if token.value.endswith(" action") else " in action"
        return f"{action} started at :{line}"

    def _nest(self) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            self._fail("nested too deeply")

    # --- structure ------------------------------------------------------------------------------

    def whole(self) -> tuple[nodes.ListNode, dict[str, nodes.ListNode]]:
        root = nodes.ListNode(self._peek().position)
        while self._peek().kind is not Kind.EOF:
            if self._peek().kind is Kind.OPEN:
                before = self._next
                self._take()
                token = self._take_past_space()
                if token.kind is Kind.KEYWORD and token.value == "define":
                    self._definition()
                    continue
                self._next = before
            node = self._text_or_action()
            if isinstance(node, _Ending):
                self._fail(f"unexpected {node}")
            root.nodes.append(node)
        self._define("", root)
        return self._definitions.pop(""), self._definitions

    def _define(self, name: str, tree: nodes.ListNode) -> None:
        """An empty definition gives way to another one and never replaces one."""
        known = self._definitions.get(name)
        if known is None or _is_empty(known):
            self._definitions[name] = tree
        elif not _is_empty(tree):
            self._fail(f"template: multiple definition of template {quote(name)}")

    def _definition(self) -> None:
        _, name = self._template_name("define clause")
        self._expect(Kind.CLOSE, "define clause")
        self._define(name, self._separate_list("define clause"))

    def _separate_list(self, context: str) -> nodes.ListNode:
        """The list of a template of its own, up to its ``{{end}}``."""
        outer = self._variables, self._range_depth, self._action_at
        self._variables, self._range_depth, self._action_at = ["$"], 0, None
        body, ending = self._list()
        if ending.word != "end":
            self._fail(f"unexpected {ending} in {context}")
        self._variables, self._range_depth, self._action_at = outer
        return body

    def _template_name(self, context: str) -> tuple[int, str]:
        token = self._take_past_space()
        if token.kind is not Kind.STRING:
            self._unexpected(token, context)
        return token.position, self._unquoted(token)

    def _unquoted(self, token: Token) -> str:
        try:
            return unquoted(token.value)
        except ValueError as error:
            self._fail(str(error))

    def _list(self) -> tuple[nodes.ListNode, _Ending]:
        self._nest()
        found = nodes.ListNode(self._peek_past_space().position)
        while True:
            if self._peek_past_space().kind is Kind.EOF:
                self._fail("unexpected EOF")
            node = self._text_or_action()
            if isinstance(node, _Ending):
                self._nesting -= 1
                return found, node
            found.nodes.append(node)

    def _text_or_action(self) -> nodes.Node | _Ending:
        token = self._take_past_space()
        if token.kind is Kind.TEXT:
            return nodes.TextNode(token.position, token.value)
        if token.kind is not Kind.OPEN:
            self._unexpected(token, "input")
        self._action_at = token.position
        action = self._action()
        self._action_at = None
        return action

    def _action(self) -> nodes.Node | _Ending:
        token = self._peek_past_space()
        if token.kind is not Kind.KEYWORD or token.value == "define":
            return nodes.ActionNode(token.position, self._pipeline("command", Kind.CLOSE))
        self._take()
        word = token.value
        if word in _CONTROLS:
            return self._control(word)
        if word == "end":
            self._expect(Kind.CLOSE, "end")
            return _Ending("end")
        if word == "else":
            follower = self._peek_past_space()
            if follower.kind is not Kind.KEYWORD or follower.value not in ("if", "with"):
                self._expect(Kind.CLOSE, "else")
            return _Ending("else")
        if word == "block":
            return self._block()
        if word == "template":
            return self._template()
        return self._leave_iteration(token)

    def _leave_iteration(self, token: Token) -> nodes.Node:
        word = "{{" + token.value + "}}"
        closing = self._take_past_space()
        if closing.kind is not Kind.CLOSE:
            self._unexpected(closing, word)
        if not self._range_depth:
            self._fail(f"{word} outside {{{{range}}}}")
        if token.value == "break":
            return nodes.BreakNode(token.position)
        return nodes.ContinueNode(token.position)

    def _control(self, word: str) -> _Control:
        scope = len(self._variables)
        pipe = self._pipeline(word, Kind.CLOSE)
        self._range_depth += word == "range"
        body, ending = self._list()
        self._range_depth -= word == "range"
        otherwise = None
        if ending.word == "else":
            follower = self._peek()
            if follower.kind is Kind.KEYWORD and follower.value == word and word != "range":
                # One {{end}} closes the whole chain.
                self._take()
                self._nest()
                otherwise = nodes.ListNode(follower.position, [self._control(word)])
                self._nesting -= 1
            else:
                otherwise, ending = self._list()
                if ending.word != "end":
                    self._fail(f"expected end; found {ending}")
        del self._variables[scope:]
        return _CONTROLS[word](pipe.position, pipe, body, otherwise)

    def _template(self) -> nodes.TemplateNode:
        position, name = self._template_name("template clause")
        pipe = None
        if self._peek_past_space().kind is Kind.CLOSE:
            self._take()
        else:
            pipe = self._pipeline("template clause", Kind.CLOSE)
        return nodes.TemplateNode(position, name, pipe)

    def _block(self) -> nodes.TemplateNode:
        position, name = self._template_name("block clause")
        pipe = self._pipeline("block clause", Kind.CLOSE)
        self._define(name, self._separate_list("block clause"))
        return nodes.TemplateNode(position, name, pipe)

    # --- pipelines ------------------------------------------------------------------------------

    def _pipeline(self, context: str, end: Kind) -> nodes.PipeNode:
        pipe = nodes.PipeNode(self._peek_past_space().position)
        self._declarations(pipe, context)
        while (token := self._peek_past_space()).kind is not end:
            if token.kind not in _OPERANDS:
                self._take()
                self._unexpected(token, context)
            pipe.commands.append(self._command())
        self._take()
        if not pipe.commands:
            self._fail(f"missing value for {context}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            if isinstance(command.arguments[0], _CONSTANTS):
                self._fail(f"non executable command in pipeline stage {stage}")
        return pipe

    def _declarations(self, pipe: nodes.PipeNode, context: str) -> None:
        """``$x :=``, ``$x =``, and for a range ``$i, $x :=``; anything else is left alone."""
        while (variable := self._peek_past_space()).kind is Kind.VARIABLE:
            before = self._next
            self._take()
            follower = self._peek_past_space()
            if follower.kind not in (Kind.DECLARE, Kind.ASSIGN, Kind.COMMA):
                self._next = before
                return
            self._take()
            pipe.declarations.append(nodes.VariableNode(variable.position, (variable.value,)))
            self._variables.append(variable.value)
            if follower.kind is not Kind.COMMA:
                pipe.is_assignment = follower.kind is Kind.ASSIGN
                return
            if context != "range" or len(pipe.declarations) > 1:
                self._fail(f"too many declarations in {context}")
            if self._peek_past_space().kind not in (Kind.VARIABLE, Kind.CLOSE, Kind.CLOSE_PAREN):
                self._fail("range can only initialize variables")

    def _command(self) -> nodes.CommandNode:
        command = nodes.CommandNode(self._peek_past_space().position)
        while True:
            self._peek_past_space()
            operand = self._operand()
            if operand is not None:
                command.arguments.append(operand)
            token = self._peek()
            if token.kind in (Kind.CLOSE, Kind.CLOSE_PAREN):
                break
            self._take()
            if token.kind is Kind.PIPE:
                break
            if token.kind is not Kind.SPACE:
                self._unexpected(token, "operand")
        if not command.arguments:
            self._fail("empty command")
        return command

    def _operand(self) -> nodes.Operand | None:
        node = self._term()
        if node is None or self._peek().kind is not Kind.FIELD:
            return node
        position = self._peek().position
        names: list[str] = []
        while self._peek().kind is Kind.FIELD:
            names.append(self._take().value[1:])
        if isinstance(node, nodes.FieldNode):
            return nodes.FieldNode(position, (*node.names, *names))
        if isinstance(node, nodes.VariableNode):
            return nodes.VariableNode(position, (*node.names, *names))
        if isinstance(node, _CONSTANTS):
            self._fail(f"unexpected . after term {quote(str(node))}")
        return nodes.ChainNode(position, node, tuple(names))

    def _term(self) -> nodes.Operand | None:
        token = self._peek_past_space()
        if token.kind not in _OPERANDS:
            return None
        self._take()
        position, value = token.position, token.value
        match token.kind:
            case Kind.IDENTIFIER:
                if value not in self._functions:
                    self._fail(f"function {quote(value)} not defined")
                return nodes.IdentifierNode(position, value)
            case Kind.DOT:
                return nodes.DotNode(position)
            case Kind.NIL:
                return nodes.NilNode(position)
            case Kind.VARIABLE:
                if value not in self._variables:
                    self._fail(f"undefined variable {quote(value)}")
                return nodes.VariableNode(position, (value,))
            case Kind.FIELD:
                return nodes.FieldNode(position, (value[1:],))
            case Kind.BOOL:
                return nodes.BoolNode(position, value == "true")
            case Kind.NUMBER:
                try:
                    return nodes.NumberNode(position, parse_number(value), value)
                except ValueError as error:
                    self._fail(str(error))
            case Kind.STRING:
                return nodes.StringNode(position, self._unquoted(token), value)
            case _:
                self._nest()
                pipe = self._pipeline("parenthesized pipeline", Kind.CLOSE_PAREN)
                self._nesting -= 1
                return pipe


def _is_empty(tree: nodes.ListNode) -> bool:
    return all(isinstance(node, nodes.TextNode) and not node.text.strip() for node in tree.nodes)
