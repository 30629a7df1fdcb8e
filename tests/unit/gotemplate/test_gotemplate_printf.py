# ruff: noqa: E501
"""``printf`` under its verbs and flags; all outputs are those of Go 1.26."""

import pytest
from gotemplate_samples import run

CASES = [
    ('{{printf "%[1]*d" 5 3}}', "    3"),
    ('{{printf "%[2]*[1]d" 5 3}}', "  5"),
    ('{{printf "%[1]d %d %d" 5 3}}', "5 3 %!d(MISSING)"),
    ('{{printf "%[3]d" 1 2}}', "%!d(BADINDEX)"),
    ('{{printf "%[x]d" 1}}', "%!d(BADINDEX)"),
    ('{{printf "%[1" 1}}', "%!(NOVERB)"),
    ('{{printf "%*d" 5}}', "%!d(MISSING)"),
    ('{{printf "%*d" "a" 5}}', "%!(BADWIDTH)5"),
    ('{{printf "%-*d|%*d|" 5 3 -5 3}}', "3    |3    |"),
    (
        '{{printf "%.*f %.*f %.*d" 2 3.14159 -2 3.14159 "x" 3}}',
        "3.14 %!(BADPREC)3.141590 %!(BADPREC)3",
    ),
    ('{{printf "%99999999d" 1}}', "%!(NOVERB)%!(EXTRA int=1)"),
    ('{{printf "%5%"}}{{printf "%!"}}{{printf "%é" 1}}', "%%!!(MISSING)%!é(int=1)"),
    ('{{printf "%s" "a" "b" nil}}', "a%!(EXTRA string=b, <nil>)"),
    ('{{printf "%.d|%.s|%1.d|%6.3v|" 5 "abc" 0 "abcdef"}}', "5|| |   abc|"),
    (
        '{{printf "%[2]3d" 5 3}}{{printf "%[2].3d" 5 3}}{{printf "%.[2]d" 5 3}}',
        "%!d(BADINDEX)%!d(BADINDEX)3",
    ),
    ('{{printf "%-+ #05d|% d|% d|%+d|%+.3d" 3 3 -3 3 7}}', "+3   | 3|-3|+3|+007"),
    (
        '{{printf "%08d|%-08d|%08d|%+08d|%8.3d" 42 42 -42 42 42}}',
        "00000042|42      |-0000042|+0000042|     042",
    ),
    (
        '{{printf "%b %o %#o %O %x %X %#x %#b" 10 8 8 8 255 255 255 5}}',
        "1010 10 010 0o10 ff FF 0xff 0b101",
    ),
    (
        '{{printf "%c%c %q %+q %U %#U" 233 20013 233 233 233 233}}',
        "é中 'é' '\\u00e9' U+00E9 U+00E9 'é'",
    ),
    ('{{printf "%c %q" -1 1114112}}', "� '�'"),
    ('{{printf "%d %x" -9223372036854775808 -255}}', "-9223372036854775808 -ff"),
    (
        '{{printf "%08.3f|%-8.3f|%+.1e|%G|%E" 3.14159 2.0 12345.678 1e-10 2.0}}',
        "0003.142|2.000   |+1.2e+04|1E-10|2.000000E+00",
    ),
    (
        '{{printf "%g %g %.3g %#g %b" 1234567.0 100000.0 1234567.0 3.5 2.5}}',
        "1.234567e+06 100000 1.23e+06 3.50000 5629499534213120p-51",
    ),
    (
        '{{printf "%x %X %.3x %.1x %x" 2.5 1e300 2.5 1.999 0.0}}',
        "0x1.4p+01 0X1.7E43C8800759CP+996 0x1.400p+01 0x1.0p+01 0x0p+00",
    ),
    (
        '{{printf "%x %X % x %#x %# x %.2x" "hello" "hello" "hello" "hello" "hello" "hello"}}',
        "68656c6c6f 68656C6C6F 68 65 6c 6c 6f 0x68656c6c6f 0x68 0x65 0x6c 0x6c 0x6f 6865",
    ),
    (
        '{{printf "%q %+q %#q %#q %.2q" "é\\n\\x01" "é😀" "a" "`" "abc"}}',
        '"é\\n\\x01" "\\u00e9\\U0001f600" `a` "`" "ab"',
    ),
    (
        '{{printf "%5s|%-5s|%.2s|%05s|%5q" "ab" "ab" "héllo" "ab" "a"}}',
        '   ab|ab   |hé|000ab|  "a"',
    ),
    ('{{printf "%5t|%-7t|%t" true false 1}}', " true|false  |%!t(int=1)"),
    (
        '{{printf "%5v|%08v|%v|%d|%s" nil true nil nil nil}}',
        "<nil>|0000true|<nil>|%!d(<nil>)|%!s(<nil>)",
    ),
    (
        '{{printf "%T %T %T %T %T %T %T" "a" 1 .i true .l .m nil}}',
        "string int float64 bool []interface {} map[string]interface {} <nil>",
    ),
    (
        '{{printf "%#v %#v %#v %#v %#v %#v" .l .m "a" 3 1000000.0 .nl}}',
        '[]interface {}{"x", "y", "z"} map[string]interface {}{"a":"q", "b":1, "k":map[string]interface {}{"z":1}} "a" 3 1e+06 []interface {}{interface {}(nil), 1, []interface {}{interface {}(nil)}}',
    ),
    (
        '{{printf "%+v %6v|%-4v|%s|%d|%q|%x" .m .l .l .nl .nl .nl .l}}',
        "map[a:q b:1 k:map[z:1]] [     x      y      z]|[x    y    z   ]|[<nil> %!s(float64=1) [<nil>]]|[<nil> %!d(float64=1) [<nil>]]|[<nil> %!q(float64=1) [<nil>]]|[78 79 7a]",
    ),
    ('{{printf "%+d %#d %5d" 2.5 "a" "x"}}', "%!d(float64=+2.5) %!d(string=a) %!d(string=    x)"),
    ('{{printf "%w %p" 3 3}}', "%!w(int=3) %!p(int=3)"),
    ('{{printf "%s" print}}', ""),
    ('{{printf "%q %x %s" "\\xff" "\\xff" "\\xc3"}}', '"\\xff" ff �'),
]


@pytest.mark.parametrize(("template", "expected"), CASES)
def test_output(template: str, expected: str) -> None:
    assert run(template) == expected
