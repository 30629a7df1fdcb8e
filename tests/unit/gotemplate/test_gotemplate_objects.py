"""Objects with a type of their own, and functions of others, in templates."""

from typing import Any

import pytest
from gotemplate_samples import FUNCTIONS

from ollamad.gotemplate.errors import CallError, TemplateRunError
from ollamad.gotemplate.functions import Function
from ollamad.gotemplate.template import parse
from ollamad.gotemplate.values import GoList, GoMap, GoStruct


class Person(GoStruct):
    go_type = "*people.Person"

    def __init__(self, name: str, parent: "Person | None" = None) -> None:
        self._fields = {"Name": name, "Age": 3, "Parent": parent, "Tags": {"k": 1.0}}

    def go_field(self, name: str) -> Any:
        return self._fields[name]

    def go_text(self) -> str:
        return "{" + str(self._fields["Name"]) + "}"


class People(GoList):
    go_type = "people.People"

    def go_text(self) -> str:
        return "people!" if self else "nobody"


class Scores(GoMap):
    go_type = "people.Scores"

    def go_text(self) -> str:
        return "scores"


DATA = {
    "one": Person("a", Person("b")),
    "all": People([Person("a"), Person("b")]),
    "nobody": People(),
    "scores": Scores({"y": Person("yy"), "x": Person("xx")}),
}


def run(template: str) -> str:
    functions = {**FUNCTIONS, "refuse": Function(_refuse, 1, 1), "twice": Function(_twice, 1, 2)}
    return parse(template, functions).execute(DATA)


def _refuse(value: object) -> None:
    raise CallError("not this one")


def _twice(value: str, *_more: str) -> str:
    return value * 2


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.one}} {{.all}} {{.nobody}} {{.scores}}", "{a} people! nobody scores"),
        ("{{.one.Name}} {{.one.Parent.Name}} {{.one.Tags.k}} {{.one.Tags.z}}", "a b 1 <no value>"),
        ("{{range $i, $p := .all}}{{$i}}{{$p.Name}}{{.Age}}{{end}}", "0a31b3"),
        ("{{range $k, $p := .scores}}{{$k}}={{.Name}};{{end}}", "x=xx;y=yy;"),
        ("{{range .nobody}}x{{else}}none{{end}}{{if .nobody}}x{{end}}", "none"),
        ("{{if .one}}yes{{end}}{{if .one.Parent.Parent}}x{{end}}", "yes"),
        ("{{len .all}} {{(index .all 1).Name}} {{(slice .all 1) | len}}", "2 b 1"),
        ("{{.scores.x.Name}} {{(index .scores `y`).Name}} {{.scores.z}}", "xx yy <no value>"),
        ("{{print .all .one}} {{printf `%s %v %q %T` .one .one .one .one}}",
         'people! {a} {a} {a} "{a}" *people.Person'),
        ("{{eq .one.Age 3}} {{eq .one .one}} {{eq .one .one.Parent}}", "true true false"),
        ("{{slice `abcdef` .one.Age}}", "def"),
        ("{{twice .one.Name}} {{`x` | twice .one.Name}}", "aa aa"),
        ("{{printf `%v` (slice .all 0 1)}}", "[{a}]"),
    ],
)  # fmt: skip
def test_output(template: str, expected: str) -> None:
    assert run(template) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{range .all}}{{.Nope}}{{end}}", "can't evaluate field Nope in type *people.Person"),
        ("{{range $p := .all}}{{$p.Nope}}{{end}}", "can't evaluate field Nope in type *people.P"),
        ("{{.all.x}}", "can't evaluate field x in type people.People"),
        ("{{.one.Name.x}}", "can't evaluate field x in type string"),
        ("{{.one.Age.x}}", "can't evaluate field x in type int"),
        ("{{.one.Name 3}}", "Name has arguments but cannot be invoked as function"),
        ("{{.one.Parent.Parent.Name}}", "nil pointer evaluating interface {}.Name"),
        ("{{range .one}}{{end}}", "range can't iterate over {a}"),
        ("{{len .one}}", "error calling len: len of type *people.Person"),
        ("{{index .one 1}}", "error calling index: can't index item of type *people.Person"),
        ("{{eq .one 1}}", "incompatible types for comparison: *people.Person and int"),
        ("{{eq .all .all}}", "non-comparable type people!: people.People"),
        ("{{refuse 1}}", "<refuse 1>: error calling refuse: not this one"),
        ("{{1 | refuse}}", "<refuse>: error calling refuse: not this one"),
        ("{{twice}}", "wrong number of args for twice: want 1 got 0"),
        ("{{twice 1 2 3}}", "wrong number of args for twice: want 1 got 3"),
    ],
)
def test_errors(template: str, message: str) -> None:
    with pytest.raises(TemplateRunError) as error:
        run(template)
    assert message in str(error.value)
