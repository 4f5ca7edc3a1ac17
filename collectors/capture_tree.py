"""The shape of a capture: XML elements and indented text become one kind of tree that remembers its lines."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from lxml import etree

from fleet.errors import BadTrace


@dataclass(slots=True)
class Section:
    """One named part of a report: its own text, the line it starts on, and the parts inside it.

    Names are compared without regard to case. `attributes` are those of an XML element.
    """

    name: str
    line: int
    text: str = ""
    children: list["Section"] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def all(self, name: str) -> Iterator["Section"]:
        """Yield the parts of that name, in order."""
        wanted = name.casefold()
        return (child for child in self.children if child.name == wanted)

    def deepest(self, path: str) -> tuple["Section", bool]:
        """Return the part at `path` (names divided by /) and True, or the deepest part on the way and False."""
        here = self
        for name in path.split("/"):
            found = next(here.all(name), None)
            if found is None:
                return here, False
            here = found
        return here, True


def read_xml(content: bytes, path: Path) -> Section:
    """Return the tree of an `nvidia-smi -q -x` report, or raise `BadTrace` naming the file and the line."""
    # A capture is somebody else's file: no entities, no DTD, no network.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        message = f"{path}, line {error.lineno}: not whole XML, perhaps cut off: {error.msg}"
        raise BadTrace(message, place=f"{path}:{error.lineno}") from error
    tree = _section_of(root)
    if tree.name != "nvidia_smi_log":
        message = f"{path}, line {tree.line}: the root is <{tree.name}>, not the <nvidia_smi_log> of nvidia-smi -q -x"
        raise BadTrace(message, place=f"{path}:{tree.line}")
    return tree


def _section_of(element: etree._Element) -> Section:
    line = getattr(element, "sourceline", None)  # a number, which the stubs of lxml do not say
    text = " ".join((element.text or "").split())
    children = [_section_of(child) for child in element.iterchildren("*")]
    attributes = {str(key): str(value) for key, value in element.attrib.items()}
    return Section(str(element.tag).casefold(), line if isinstance(line, int) else 0, text, children, attributes)


_LINE = re.compile(r"^(?P<indent>\s*)(?P<name>\S.*?)(?:\s+:(?:\s+(?P<text>.*))?)?$")


def read_indented(lines: list[str], first_line: int) -> Section:
    """Return the tree of an `nvidia-smi -q` report: `Name : text` lines, parts set in deeper than their whole."""
    root = Section("", first_line)
    open_sections = [(-1, root)]
    for number, line in enumerate(lines, first_line):
        match = _LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        while open_sections[-1][0] >= indent:
            open_sections.pop()
        section = Section(match["name"].casefold(), number, (match["text"] or "").strip())
        open_sections[-1][1].children.append(section)
        open_sections.append((indent, section))
    return root


@dataclass(frozen=True, slots=True)
class Block:
    """One titled block of a text capture: `phase :: title`, its lines and the number of the first of them."""

    phase: str
    title: str
    first_line: int
    lines: tuple[str, ...]


REPORT_TITLE = "query (-q)"
_RULE = re.compile(r"^#{20,}$")
_TITLE = re.compile(r"^# (?P<phase>\w+) :: (?P<title>.+)$")


def read_blocks(content: bytes, path: Path) -> tuple[list[str], list[Block]]:
    """Return the heading lines and the titled blocks of a text capture; only a whole one passes.

    Raises `BadTrace` naming the file and the block in which it was cut: in the middle of a line or of a title,
    before the load phase that the heading tells of, or where a phase lacks a block that the other one has.
    """
    lines = _lines_of(content, path)
    starts = [index for index, line in enumerate(lines[:-1]) if _RULE.match(line) and _TITLE.match(lines[index + 1])]
    heading = lines[: starts[0]] if starts else lines
    blocks = [_block(lines[start:end], start, path) for start, end in pairwise([*starts, len(lines)])]
    _require_whole(heading, blocks, path)
    return heading, blocks


def _lines_of(content: bytes, path: Path) -> list[str]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        message = f"{path}, line {line}: not UTF-8 text, perhaps cut off or damaged"
        raise BadTrace(message, place=f"{path}:{line}") from error
    if not text.endswith("\n"):
        line = text.count("\n") + 1
        message = f"{path}, line {line}: cut off in the middle of a line"
        raise BadTrace(message, place=f"{path}:{line}")
    return [line.rstrip("\r") for line in text.split("\n")[:-1]]


def _block(lines: list[str], start: int, path: Path) -> Block:
    match = _TITLE.match(lines[1])
    end = next((index for index in range(2, min(len(lines), 5)) if _RULE.match(lines[index])), None)
    if match is None or end is None:
        message = f"{path}, line {start + 1}: cut off in the title {lines[1].lstrip('# ')!r}"
        raise BadTrace(message, place=f"{path}:{start + 1}")
    return Block(match["phase"], match["title"], start + end + 2, tuple(lines[end + 1 :]))


def _require_whole(heading: list[str], blocks: list[Block], path: Path) -> None:
    titles = {phase: [block.title for block in blocks if block.phase == phase] for phase in ("idle", "load")}
    has_load = any(re.match(r"load:\s*(?!none\b|n/a\b|no\b)\S", line, re.IGNORECASE) for line in heading)
    if not titles["idle"] or (has_load and not titles["load"]):
        missing = "load" if titles["idle"] else "idle"
        last = blocks[-1].title if blocks else "the heading"
        message = f"{path}: cut off after {last!r}: there is no block '{missing} :: {REPORT_TITLE}'"
        raise BadTrace(message, place=f"{path}:{last}")
    if titles["load"] and titles["load"] != titles["idle"]:
        absent = next((title for title in titles["idle"] if title not in titles["load"]), REPORT_TITLE)
        message = f"{path}: cut off in the load phase: there is no block 'load :: {absent}'"
        raise BadTrace(message, place=f"{path}:load :: {absent}")
    _require_whole_end(blocks, path)


def _require_whole_end(blocks: list[Block], path: Path) -> None:
    # Every block ends where the next begins, but nothing ends the last one, so that may not be the report itself.
    # Monitors print the same number of lines in both phases: one that ends the file can be measured by its twin.
    last = blocks[-1]
    twin = next((block for block in blocks if block.title == last.title and block.phase != last.phase), None)
    is_short = twin is not None and len(_content(last)) < len(_content(twin))
    if is_short or not _content(last) or last.title == REPORT_TITLE:
        message = f"{path}, line {last.first_line}: cut off in the block '{last.phase} :: {last.title}'"
        raise BadTrace(message, place=f"{path}:{last.phase} :: {last.title}")


def _content(block: Block) -> list[str]:
    return [line for line in block.lines if line.strip()]
