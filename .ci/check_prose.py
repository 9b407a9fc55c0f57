"""Find sentences that are hard to read: in README, pages, examples and docstrings.

    python .ci/check_prose.py                    # ends with 1 if a file is over a limit
    python .ci/check_prose.py ROOT --files docs/faq.md
    python .ci/check_prose.py --measure PATH ... # counts only, of any package or page

A file that is over the limit of a rule is listed with all its sentences that break it.
Code and mathematics do not count. In rows of tables only words and semicolons do.
"""

import argparse
import ast
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# The most in 1,000 words of a file (rounded up), a little above five packages whose
# docstrings read easily. `--measure` counted in them, and in this one before its pages
# were rewritten (November 2026):
#
#   rule                 sklearn  equinox   MAPIE   skops  skorch   skvmdls   its README
#                          1.9.1   0.13.8   1.6.0  0.16.0   1.4.0
#   semicolon               1.26     4.41    0.31    0.59    0.82      8.69        16.79
#   clause as subject       0.07     0.43    0.00    0.00    0.16      2.13         3.50
#   long sentence           1.77     1.22    1.15    2.34    1.42      2.01         4.90
#   many numbers            0.11     0.00    0.00    0.00    0.05      0.23         1.40
#   private word            0.07     0.00    0.05    0.59    0.00      3.63         7.70
#   words in a sentence     10.2      9.1    10.4    11.8    10.8      12.0         16.6
LIMITS = {
    "semicolon": 3.0,
    "clause as subject": 1.0,
    "long sentence": 3.0,
    "many numbers": 1.0,
    "private word": 0.0,
}
LONGEST, MOST_NUMBERS = 30, 4  # words, numbers in a sentence

# Words that only this project used in these senses, and what to write.
WORDS = {
    r"anew": "again, retrained",
    r"promis(e|es|ed|ing)": "guarantee",
    r"recalled": "loaded from the cache",
    r"(?<!significant )figures": "metrics, numbers, plots",
    r"pictures?": "image, plot",
    r"peers?": "baseline",
    r"joint(?! (distribution|density|probabilit))": "global",
    r"beside": "next to, compared with",
    r"by half": "weight 0.5",
    r"witness(es)?": "part",
    r"(over)?hears?": "a verb of computing",
    r"withstands?": "robust to",
    r"ha(s|ve) no say": "does not change",
    r"nothing .{0,40}\bbut\b": "the positive statement",
    r"turn(s|ed)? away": "reject",
    r"(CODE|detectors?|estimators?|nets?|scores?|parts?|thresholds?|methods?|monitors?"
    r"|files?|functions?|models?|it) (says?|said|tells?|told|speaks?|answers?"
    r"|answered)": "returns, scores, shows, stores",
}
PRIVATE = {re.compile(rf"\b({word})\b", re.I): use for word, use in WORDS.items()}

SUBJECT = re.compile(r"\W*(What|Which|Who|Whoever)\b|\W*(Where|Whatever)\b[^,]*$")
# A full stop that ends a sentence, and abbreviations that do not.
ENDS = re.compile(r"(?<=[.!?])[\"')\]*_]*\s+(?=[\"'(\[*_]*[A-Z0-9])")
SHORTENED = re.compile(r"\b(e\.g|i\.e|eqs?|al|vs|cf|Figs?|Secs?|resp|approx|[A-Z])\.")
WORD = re.compile(r"[\w'’-]*[A-Za-z][\w'’-]*")
NUMBER = re.compile(r"(?<![\w.-])\d[\d,.]*\b")
LIST_ITEM = re.compile(r"\s*([-*+]|\d+[.)]|\.\. \[\w+\])\s+")
RULE = re.compile(r"\s*[-=~^]{3,}\s*$")


class Block(NamedTuple):
    """Text without breaks: a paragraph, a heading, an item of a list, a row."""

    line: int
    text: str
    is_row: bool = False


class Fault(NamedTuple):
    """A sentence that breaks a rule."""

    line: int
    rule: str
    text: str


class Prose:
    """The counts of a file, and the sentences that break a rule."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self.n_words = self.n_sentences = 0
        self.words_in_sentences = 0
        self.faults: list[Fault] = []
        for block in blocks:
            parts = [block.text] if block.is_row else sentences(block.text)
            for sentence in parts:
                found = ["semicolon"] * sentence.count(";") + private_words(sentence)
                if not block.is_row:
                    found += hard_to_read(sentence)
                self.faults += [Fault(block.line, rule, sentence) for rule in found]
            n_words = len(WORD.findall(block.text))
            self.n_words += n_words
            if not block.is_row:
                self.n_sentences += len(parts)
                self.words_in_sentences += n_words

    def of(self, rule: str) -> list[Fault]:
        """Return the sentences that break one rule."""
        return [fault for fault in self.faults if fault.rule.startswith(rule)]

    def over_limit(self) -> list[Fault]:
        """Return the sentences of each rule whose limit is exceeded."""
        return [
            fault
            for rule, limit in LIMITS.items()
            if len(self.of(rule)) > math.ceil(limit * self.n_words / 1000)
            for fault in self.of(rule)
        ]


def private_words(sentence: str) -> list[str]:
    """Name each private word of a sentence."""
    return [
        f"private word {match[0]!r}, write: {use}"
        for word, use in PRIVATE.items()
        for match in word.finditer(sentence)
    ]


def hard_to_read(sentence: str) -> list[str]:
    """Name the rules about its form that a sentence breaks."""
    found = []
    if SUBJECT.match(sentence) and not sentence.rstrip("*_\")' ").endswith("?"):
        found.append("clause as subject")
    if (n_words := len(WORD.findall(sentence))) > LONGEST:
        found.append(f"long sentence: {n_words} words")
    if (n_numbers := len(NUMBER.findall(sentence))) > MOST_NUMBERS:
        found.append(f"many numbers: {n_numbers}")
    return found


def sentences(text: str) -> list[str]:
    """Split a block into its sentences."""
    text = SHORTENED.sub(r"\1", " ".join(text.split()))
    return [sentence for sentence in ENDS.split(text) if WORD.search(sentence)]


def plain(text: str) -> str:
    """Replace code and mathematics by CODE, and links and images by their text."""
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\]\([^)]*\)|\]\[[^\]]*\]", "]", text)
    text = re.sub(r":[\w:]+:`[^`]*`|``.+?``|`[^`]+`_*|\$[^$]+\$", "CODE", text)
    return re.sub(r"<[^>]+>|https?://\S+|&\w+;", " ", text)


def prose_lines(text: str) -> Iterator[str]:
    """Yield each line, empty where it is code, a comment or a directive."""
    text = re.sub(r"<!--.*?-->|\$\$.*?\$\$", blank, text, flags=re.DOTALL)
    fence, code_below = "", -1  # lines that are indented more than this are code
    for line in text.split("\n"):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped and indent <= code_below:
            code_below = -1
        if mark := re.match("```|~~~", stripped):
            fence = "" if fence else mark[0]
            yield ""
        elif fence or code_below >= 0:
            yield ""
        elif stripped.startswith(">>>"):
            code_below = indent - 1  # its results as well, to the next text
            yield ""
        elif re.match(r"\|.* \| `\w+(Error|Warning)`: ", stripped):
            yield ""  # a message, quoted
        elif re.match(r"\.\. [\w:-]+::", stripped):
            code_below = indent
            yield ""
        else:
            if stripped.endswith("::"):
                code_below = indent
            yield line


def text_blocks(text: str, first: int = 1) -> Iterator[Block]:
    """Yield the blocks of Markdown or reStructuredText that begins at a line."""
    lines: list[str] = []
    start = first

    def finished() -> Iterator[Block]:
        if lines:
            yield Block(start, plain(" ".join(lines)))
        lines.clear()

    for number, line in enumerate(prose_lines(text), first):
        is_row, is_heading = line.lstrip().startswith("|"), line.startswith("#")
        if not line.strip() or is_row or is_heading or RULE.match(line):
            yield from finished()
            if is_row or is_heading:
                yield Block(number, plain(line.lstrip("# ")), is_row)
            continue
        if item := LIST_ITEM.match(line):
            yield from finished()
            line = line[item.end() :]
        if not lines:
            start = number
        lines.append(line)
    yield from finished()


def blank(match: re.Match[str]) -> str:
    """Keep the ends of the lines, so that lines keep their numbers."""
    return "\n" * match[0].count("\n")


def numpydoc(text: str) -> str:
    """Blank the sources, and the lines that name sections and parameters."""
    sources = r"^ *References\n *-+\n.*?(?=^ *\w+\n *--|\Z)"
    text = re.sub(sources, blank, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ *\w[\w ]*\n *-{3,} *$", blank, text, flags=re.MULTILINE)
    return re.sub(r"^ *\*{0,2}\w[\w, *]* : .*$", "", text, flags=re.MULTILINE)


def text_of(node: ast.AST | None) -> tuple[str, int] | None:
    """Return a string that stands in the code, and its line."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value, node.lineno
    return None


def docstring(node: ast.AST) -> tuple[str, int] | None:
    """Return the docstring of a module, class or function, and its line."""
    body: list[ast.AST] = getattr(node, "body", [])
    if body and isinstance(body[0], ast.Expr):
        return text_of(body[0].value)
    return None


def docstring_blocks(node: ast.AST) -> Iterator[Block]:
    """Yield the blocks of a docstring, and of a class's public members."""
    if found := docstring(node):
        yield from text_blocks(numpydoc(found[0]), found[1])
    for member in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
            yield from docstring_blocks(member)
    for call in ast.walk(node) if isinstance(node, ast.ClassDef) else ():
        # The texts of which a detector's docstring is made.
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "parameter":
            for keyword in call.keywords:
                if keyword.arg == "text" and (text := text_of(keyword.value)):
                    yield from text_blocks(*text)


def example_blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of a page of the gallery: docstring, comments after "# %%"."""
    text = path.read_text(encoding="utf-8")
    if found := docstring(ast.parse(text)):
        yield from text_blocks(*found)
    for cell in re.finditer(r"^# %%.*\n((?:#.*\n)+)", text, re.MULTILINE):
        comment = re.sub("^# ?", "", cell[1], flags=re.MULTILINE)
        yield from text_blocks(comment, text.count("\n", 0, cell.start(1)) + 1)


class Package:
    """The public docstrings of the package, found without importing it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: dict[Path, list[ast.AST]] = {}
        self.looked_up: set[tuple[Path, str]] = set()
        paths = sorted((root / "skvmdls").rglob("*.py"))
        self.trees = {path: ast.parse(path.read_text("utf-8")) for path in paths}
        for path, tree in self.trees.items():
            folder, *names = path.relative_to(root / "skvmdls").parts
            is_door = not names or names == ["__init__.py"]
            is_private = folder in ("inputs", "cli") or re.match("_(?!_init)", folder)
            if is_door and not is_private:
                self.nodes[path] = [tree]
                for name in exported(tree):
                    self.look_up(path, name)

    def look_up(self, path: Path, name: str) -> None:
        """Add a class with its bases, or a function, and its module."""
        if path not in self.trees or (path, name) in self.looked_up:
            return
        self.looked_up.add((path, name))
        for node in self.trees[path].body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                self.nodes.setdefault(path, [self.trees[path]]).append(node)
                for base in getattr(node, "bases", ()):
                    self.look_up(path, getattr(base, "id", ""))
            elif isinstance(node, ast.ImportFrom) and name in map(known_as, node.names):
                place = self.root / str(node.module).replace(".", "/")
                self.look_up(place.with_suffix(".py"), name)
                self.look_up(place / "__init__.py", name)


def exported(tree: ast.Module) -> list[str]:
    """Return the `__all__` of a module."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            [target] = node.targets
            if isinstance(target, ast.Name) and target.id == "__all__":
                return list(ast.literal_eval(node.value))
    return []


def known_as(imported: ast.alias) -> str:
    """Return the name that a name is imported by."""
    return imported.asname or imported.name


def everything(root: Path) -> Iterator[tuple[Path, Prose]]:
    """Read README, pages, the gallery's scripts and the public docstrings."""
    docs, examples = root / "docs", root / "examples"
    for path in [
        root / "README.md",
        *sorted([*docs.glob("*.md"), *docs.glob("api/*.rst")]),
        *sorted(examples.glob("*.rst")),
    ]:
        yield path, Prose(text_blocks(path.read_text(encoding="utf-8")))
    for path in sorted(examples.glob("*.py")):
        yield path, Prose(example_blocks(path))
    for path, nodes in Package(root).nodes.items():
        yield path, Prose(block for node in nodes for block in docstring_blocks(node))


def of_any(path: Path) -> Prose:
    """Read a page, a wheel's METADATA, or all docstrings of a file."""
    text = path.read_text(encoding="utf-8")
    if path.name == "METADATA":
        text = text.partition("\n\n")[2]
    if path.suffix != ".py":
        return Prose(text_blocks(text))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    docs = [found[0] for node in nodes if (found := docstring(node))]
    return Prose(b for doc in docs for b in text_blocks(numpydoc(doc)))


def measure(paths: list[Path]) -> None:
    """Print the counts of packages and pages in 1,000 words."""
    print("| | words | words a sentence | " + " | ".join(LIMITS) + " |")
    print("|---" * (3 + len(LIMITS)) + "|")
    for path in paths:
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        read = [of_any(file) for file in files if "tests" not in file.parts]
        n_words = sum(prose.n_words for prose in read)
        n_sentences = sum(prose.n_sentences for prose in read)
        length = sum(prose.words_in_sentences for prose in read) / n_sentences
        rates = (
            f"{1000 * sum(len(prose.of(rule)) for prose in read) / n_words:.2f}"
            for rule in LIMITS
        )
        name = "/".join(path.parts[-2:])
        print(f"| {name} | {n_words:,} | {length:.1f} | {' | '.join(rates)} |")


def main() -> int:
    """Print the sentences that break a rule, and return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).parents[1])
    parser.add_argument("--files", nargs="+", help="only these, relative to ROOT")
    parser.add_argument("--measure", type=Path, nargs="+", metavar="PATH")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return 0
    n_files = n_over = 0
    for path, prose in everything(options.root):
        name = path.relative_to(options.root).as_posix()
        if options.files and name not in options.files:
            continue
        faults = prose.over_limit()
        n_files, n_over = n_files + 1, n_over + bool(faults)
        for fault in faults:
            print(f"{name}:{fault.line}: {fault.rule}\n    {fault.text}")
    print(f"{n_over} of {n_files} files are over a limit.")
    return int(n_over > 0)


if __name__ == "__main__":
    sys.exit(main())
