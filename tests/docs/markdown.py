"""What a test wants to know of a Markdown file: its code blocks and its links."""

import dataclasses
import re


@dataclasses.dataclass
class Block:
    line: int  # of the fence, from 1
    language: str  # the word after the fence, in lower case; may be empty
    text: str

    @property
    def first_line(self):
        return self.text.split("\n", 1)[0].strip()


class MarkdownError(Exception):
    pass


FENCE = re.compile(r"^( {0,3}|\s*[-*] +)(`{3,}|~{3,})\s*([\w+#-]*)")


def blocks(text):
    """Yields the fenced blocks of a document. An indented one is refused: it has no language."""
    lines = text.split("\n")
    at = 0
    in_list = False
    while at < len(lines):
        line = lines[at]
        fence = FENCE.match(line)
        if fence:
            end = at + 1
            while end < len(lines) and not lines[end].strip().startswith(fence[2]):
                end += 1
            if end == len(lines):
                raise MarkdownError(f"line {at + 1}: the block has no end")
            yield Block(at + 1, fence[3].lower(), "\n".join(lines[at + 1 : end]) + "\n")
            at = end + 1
            continue
        if re.match(r"\s*([-*+]|\d+\.) ", line):
            in_list = True  # what is indented below it is its text
        elif line and not line.startswith(" "):
            in_list = False
        elif line.startswith("    ") and line.strip() and not in_list and not lines[at - 1].strip():
            raise MarkdownError(f"line {at + 1}: an indented block; put it between fences")
        at += 1


def prose(text):
    """The document without its code blocks."""
    lines = text.split("\n")
    for block in list(blocks(text)):
        for at in range(block.line - 1, block.line + block.text.count("\n") + 1):
            lines[at] = ""
    return "\n".join(lines)


def links(text):
    """The targets of links and images, without those to other sites."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(text):
    """What #fragments of this document there are, as code hosts make them of headings."""
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
