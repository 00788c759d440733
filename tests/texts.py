"""Over fifty texts that are hard to cut and to join again, and where a stream cuts them.

Rules of this file: each text is 40 to 400 code points long and has a name that says what is hard about it; a cut depends on the
text's name and a seed only. They are answers: what a model says, in one piece.
"""

import random

TEXTS: dict[str, str] = {
    # ── Code ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    "python": 'def mean(values):\n    """The arithmetic mean."""\n    if not values:\n        return 0.0\n\n    return sum(values) / len(values)\n',
    "python, two functions that begin alike": (
        "def load(path):\n    with open(path) as file:\n        return file.read()\n\n\n"
        "def load_lines(path):\n    with open(path) as file:\n        return file.readlines()\n"
    ),
    "python, tabs and escapes": 'if line:\n\tprint("tab:\\t", \'quote:\\\'\', r"raw:\\n")\n\tprint(f"{x!r:>{width}}", end="\\r\\n")\n',
    "json": '{"name": "Ann", "tags": ["a", "b"], "nested": {"n": 1.5e-3, "none": null, "ok": true}, "empty": []}',
    "json, escaped": '{"text": "line\\nnext \\"quoted\\" \\\\ back", "unicode": "\\u00e9\\ud83d\\ude00", "slash": "\\/"}',
    "json lines": '{"id": 1, "ok": true}\n{"id": 2, "ok": true}\n{"id": 2, "ok": true}\n{"id": 3, "ok": false}\n',
    "html": '<!doctype html>\n<ul class="list">\n  <li>One &amp; two</li>\n  <li><a href="/?a=1&b=2">Three</a></li>\n</ul>\n<!-- end -->\n',
    "diff": "--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@\n import os\n-x = 1\n+x = 2\n \n-print(x)\n+print(x, x)\n",
    "shell": "$ for f in *.txt; do mv -- \"$f\" \"${f%.txt}.md\"; done\n$ echo 'done'; exit 0 # 'quoted' `ticks` $(sub)\n",
    "sql": "SELECT a.id, b.id FROM a JOIN b ON a.id = b.id\nWHERE a.id IN (1, 1, 2) AND b.name LIKE '%''%'\nORDER BY 1, 1;",
    "regular expression": r"The pattern ^(?:\s*[\w.+-]+@[\w-]+\.[\w.]+\s*)+$ matches; \\n and \d{2,} and (.*?) are its parts.",
    "csv": 'id,name,note\n1,"Ann, B.","said ""hi"""\n2,,\n3,,\n4,"",""\n5,"two\nlines",x\n',
    "xml tags like an instruction's": "<answer>So far: <text>one</text></answer>\n<so_far>two</so_far>\n</text> is no end, and <text> no start.",
    # ── Markdown ─────────────────────────────────────────────────────────────────────────────────────────────────────
    "markdown table": "| Name | Size |\n|------|-----:|\n| a    |    1 |\n| b    |    1 |\n| c    |   10 |\n|      |      |\n",
    "markdown nested list": "- One\n  - One point one\n    - Deep\n    - Deep\n  - One point two\n- Two\n\n1. First\n1. First again\n",
    "markdown headings": "# Title\n\n## Title\n\nText under the title.\n\n## Next\n\nText under the next.\n\n---\n\n# End #\n",
    "markdown fence": "Run this:\n\n```python\nprint('hi')\n```\n\nand then this:\n\n```\nplain\n```\n\nThat is all.",
    "markdown fence in a fence": "````markdown\n```python\nx = 1\n```\n````\n\n~~~\n```\n~~~\n\nFour ticks hold three.",
    "markdown quote and links": "> Said *she*, **loudly**: `code`.\n>\n> > Deeper.\n\n[one](https://x.example/a_(b)) ![two][2]\n\n[2]: <#two> 'Two'",
    "markdown check list": "- [x] Done\n- [x] Done too\n- [ ] Open\n- [ ] Open\n- [ ] Open too\n\\* no list \\_ no emphasis\n",
    "formula": "$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$ and \\(a_{i,j} \\neq b^{2^n}\\), thus $x_1 = x_2 = x_{12}$ holds.",
    # ── Prose and lists ──────────────────────────────────────────────────────────────────────────────────────────────
    "prose": (
        "The rain had stopped by noon. Nobody went out, though; the streets were empty, and the dog slept on. "
        "Later, when the light came back, someone laughed in the yard below."
    ),
    "prose with abbreviations": "Dr. A. B. Smith, Ph.D., came at 5 p.m. on Jan. 3, e.g. with St. John's 1.5 kg vs. 2.5 kg, etc. He left.",
    "dialogue": '"Who\'s there?" — “Me,” she said. ‘Me?’ »Ja, ich!« «Oui…» „Gut“, he said: "\'Nested\' it is."\n— Fine.',
    "numbered list": "1. Wash the rice.\n2. Boil the water.\n3. Boil the rice.\n4. Rest for 10 minutes.\n10. Serve.\n11. Serve more.\n",
    "verse": "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\nLife is but a dream.\n",
    "sentences that begin alike": "It was late. It was late and cold. It was late and cold and dark. It was late and cold and dark and over.",
    "begins and ends alike": "The end is near, they say. But is it? Some say no and some say yes, and some repeat: The end is near, they say.",
    "the first half twice": "Call me when you are home. I will be up. Call me when you are home. I will be up.",
    "numbers": "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899",
    "a link": "See https://example.com/a/b/c?query=1&query=1#part-1,%20two and mailto:ann@example.com?subject=a%20b for more.",
    # ── Other scripts ────────────────────────────────────────────────────────────────────────────────────────────────
    "chinese": "今天天气很好，我们去公园散步吧。公园里有很多人，也有很多花。孩子们在草地上跑来跑去，笑声不断。你觉得怎么样？",
    "japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。ｶﾀｶﾅと「かぎかっこ」、そして々や〜も使う。",
    "korean": "안녕하세요. 오늘은 날씨가 참 좋네요. 오늘은 산책을 갈까요, 아니면 집에서 책을 읽을까요? 한글은 재미있어요.",
    "korean, decomposed": "\u1112\u1161\u11ab\u1100\u1173\u11af\u110b\u1173\u11ab \u1112\u1161\u11ab\u1100\u1173\u11af\u110b\u1173\u11ab \u1112\u1161\u11ab\u1100\u1173\u11af\u110b\u1173\u11ab 1. \u1112\u1161\u11ab 2. \u1112\u1161\u11ab",
    "arabic": "السلام عليكم. هذا نصٌّ قصيرٌ للتجربة، وفيه أرقام مثل ١٢٣ و 456، وعلامات «اقتباس»؛ فهل يصل كاملاً؟",
    "hebrew": "שָׁלוֹם עוֹלָם. זה טקסט קצר (עם סוגריים) ומספרים 1, 2, 3 — וגם English באמצע, ואז שוב עברית.",
    "right to left marks": "\u202babc שלום\u202c \u2067אב\u2069 \u200fx\u200e, und so weiter bis zum Ende \u200f\u200e\u200f des Satzes.",
    "devanagari": "नमस्ते दुनिया। क्षत्रिय और ज्ञान जैसे शब्दों में संयुक्ताक्षर होते हैं। यह एक परीक्षा है।",
    "thai": "ภาษาไทยเขียนติดกันโดยไม่มีช่องว่างระหว่างคำ จึงตัดคำยาก น้ำใจ กำลังใจ ที่นี่ ทำได้ไหม",
    # ── Emoji and marks ──────────────────────────────────────────────────────────────────────────────────────────────
    "emoji": "Great 🎉🎉🎉 job! 😀😃😄😁 We did it 🚀, again and again 🚀🚀. See you ☕️ at 5 ⏰ or 6 ⏰? ✅",
    "emoji, joined": "The 👨‍👩‍👧‍👦 met 🧑🏽‍🚀 and 🏳️‍🌈 and 🏴‍☠️; then 👩🏻‍❤️‍💋‍👨🏿 left with 🐈‍⬛ and 👁️‍🗨️.",
    "emoji, flags and keycaps": "🇩🇪🇩🇪🇫🇷🇺🇸🇯🇵 and 🏴󠁧󠁢󠁳󠁣󠁴󠁿 then 1️⃣2️⃣3️⃣#️⃣ and 👍🏻👍🏼👍🏽👍🏾👍🏿 to the end 🇨🇭.",
    "combining marks": "Cafe\u0301 re\u0301sume\u0301 na\u0131\u0308ve Z\u0335\u0327\u0300a\u0336\u0301l\u0334\u0302g\u0337\u0303o\u0338\u0304 \u00c5 A\u030a \u212b, e\u0301\u0301\u0301 and Vie\u0323\u0302t Nam.",
    # ── Repetition ───────────────────────────────────────────────────────────────────────────────────────────────────
    "one word repeated": "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo buffalo buffalo buffalo buffalo.",
    "ha ha": "ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha",
    "one character": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "repeated lines": "All work and no play.\nAll work and no play.\nAll work and no play.\nAll work and no play.\nAll work.\n",
    # ── White space ──────────────────────────────────────────────────────────────────────────────────────────────────
    "white space": "  \n\n\t  indented   by    spaces\t\tand tabs  \n   \n \u00a0 \u2003\u3000 \u2028 exotic\u200b ones   \n\n\n\tend  \n \n",
    "crlf": "First line.\r\nSecond line.\r\n\r\nFourth line.\r\rOld Mac line.\n\rOdd line.\r\nLast line.\r\n",
    "very long line": " ".join(f"word{number}" for number in range(1, 52)) + ".",
    "one long word": "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2,
    # ── What an instruction may quote with ───────────────────────────────────────────────────────────────────────────
    "quoting marks": "Use \"\"\" or ''' or ``` or <<<EOF>>> or [[x]] or {{y}} or ---BEGIN--- and ---END---; so: \"\"\"text\"\"\" ```text``` '''text'''",
    "an instruction": 'Continue exactly where you stopped. Do not repeat anything. The text so far is:\n\n"Continue exactly where you stopped."\n',
}

LONGEST_CHUNK = 12


def sizes(name: str, seed: int = 0) -> tuple[int, ...]:
    """The lengths of a text's chunks, 1 to 12 code points each, whole text; as `FaultServer.answer(chunk_sizes=…)` takes them."""
    generator = random.Random(f"{name}/{seed}")
    left, drawn = len(TEXTS[name]), []
    while left:
        drawn.append(min(generator.randint(1, LONGEST_CHUNK), left))
        left -= drawn[-1]
    return tuple(drawn)


def chunks(name: str, seed: int = 0) -> list[str]:
    """A text in the chunks of `sizes`."""
    parts, start = [], 0
    for size in sizes(name, seed):
        parts.append(TEXTS[name][start : start + size])
        start += size
    return parts
