"""Token ids of transformers' CLIPTokenizer, on a small vocabulary in the form of CLIP's own: 256 bytes, the
same 256 at a word's end, merges, two special tokens. It is trained here on the sentences below."""

import json
import random
import re
import shutil
import unicodedata
from collections import Counter

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from common import FIXTURES

HERE = FIXTURES / "tokenizer"
MERGES = 700
LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"

CORPUS = """
an ultrasound image of heart in two-chamber view during the end-diastolic phase
an ultrasound image shows the heart in a four-chamber view during the es phase
apical four chamber echocardiogram of a patient with good image quality
left ventricle endocardium, left atrium, right ventricle and myocardium, mitral valve open
end systole end diastole ejection fraction fifty five percent male female age seventy
speckle noise gain depth sector acoustic shadow septum lateral wall papillary muscle
a photograph of an astronaut riding a horse on the moon, highly detailed, digital painting, artstation
a cat and a dog don't sit on the mat, they're not mine, i'll say we've won, he'd know, i'm sure it's hers
the quick brown fox jumps over the lazy dog 0123456789 !?.,;:()[]{}<>+-*/=_#@&%$"'`~^|\\
café naïve façade jalapeño über straße smørrebrød garçon São Paulo Łódź Győr coöperate résumé
привет мир сердце кардиология Ελληνικά καρδιά 心臓 超音波 心臟 超聲波 심장 초음파 قلب दिल
🫀 ❤️ 😀 👍🏽 👩‍⚕️ 🇳🇴 → ∑ √ ≤ ° µ ½ ² № ™ © …
"""

PROMPTS = [
    "",
    " ",
    "   \t\n ",
    "a",
    "A",
    "An ultrasound image shows the heart in a two-chamber view during the ed phase.",
    "an ultrasound image of heart in two-chamber view",
    "AN ULTRASOUND IMAGE OF HEART IN TWO-CHAMBER VIEW",
    "  leading and trailing   ",
    "tabs\tand\nnewlines\r\nand\x0bmore\x0c",
    "non\u00a0breaking\u2003em\u2009thin\u3000ideographic\u200bzero\ufeffbom\u2060joiner",
    "next\x85line\u2028separator\u2029paragraph\u1680ogham",
    "file\x1cgroup\x1drecord\x1eunit\x1f",
    "nul\x00bell\x07escape\x1b[0mdelete\x7f",
    "don't can't I'm you're they've he'll she'd it's 'tis 'S 'T 'RE 'VE 'M 'LL 'D",
    "'s't're've'm'll'd",
    "rock'n'roll o'clock d'Artagnan l’hôtel don’t",
    "1234567890",
    "0 12 345 6789 3.14159 1e-5 -7 +8 1,000,000 ½ ² ³ ⅷ Ⅳ ٣ ४ 四 ① 0x1F",
    "EF 55% at 60 bpm; LVEDV=120ml (LVESV=54ml)",
    "!!! ??? ... --- *** /// ::: ;;; ,,, ''' \"\"\"",
    "!",
    "a ! b! !c d!e",
    "(((very))) [[important]] {{words}} <html> &amp; \\n \\\\",
    "email@example.com https://example.org/a?b=c#d #hashtag @user $5.00 100%",
    "snake_case camelCase PascalCase kebab-case SCREAMING_SNAKE",
    "café",
    "cafe\u0301",
    "naïve façade jalapeño über straße STRASSE ẞ",
    "Å \u212b A\u030a",
    "İstanbul ISPARTA ığdır ǅ ǆ Ǆ",
    "ΟΔΥΣΣΕΥΣ Ὀδυσσεύς σς Σ",
    "ÅÄÖ åäö ÆØÅ æøå Þórður ðæ Œuvre",
    "Łódź Győr Škoda Žižkov Đorđe Ħal",
    "Việt Nam tiếng Việt ạ̃",
    "Zalgo: Z̸̢̧͖̰͑̌ä̶́l̷̛g̵o",
    "привет мир ПРИВЕТ МИР",
    "Ёлка ёлка Е\u0308лка",
    "καρδιά ΚΑΡΔΙΑ",
    "قلب القلب مَرْحَبًا",
    "שלום עולם",
    "दिल हृदय क्षत्रिय",
    "หัวใจ การเต้นของหัวใจ",
    "심장 초음파 \u1112\u1161\u11ab",
    "心臓の超音波画像",
    "心臟超聲波，四腔心切面。",
    "ｆｕｌｌｗｉｄｔｈ ＡＢＣ １２３！",
    "ﬁ ﬂ ﬀ ﬃ ǆ ㎏ ™ ℃",
    "🫀",
    "❤️ ❤ ❤︎",
    "😀😃😄😁",
    "👍🏽 👩‍⚕️ 👨‍👩‍👧‍👦 🏳️‍🌈",
    "🇳🇴🇬🇧",
    "heart🫀ultrasound",
    "a🫀b 1🫀2 🫀🫀",
    "→ ← ∑ √ ≤ ≥ ≠ ∞ ° µ μ Ω Ω",
    "𝓗𝓮𝓪𝓻𝓽 𝐻𝑒𝑎𝑟𝑡 ℋ",
    "\u202eright to left\u202c \u200fmark",
    "a\u0300\u0301\u0302\u0303",
    "\u0301 lone combining",
    "\ufffd replacement \ufffc object",
    "\ue000 private \U000f0000 \U0010ffff",
    "\U0001e900\U0001e901 adlam \U00010400\U00010428 deseret",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "x" * 300,
    "ab" * 200,
    "heart " * 73,
    "heart " * 74,
    "heart " * 75,
    "heart " * 76,
    "heart " * 200,
    "心" * 30,
    "🫀" * 40,
    "an ultrasound image of heart in two-chamber view, " * 12,
    START,
    END,
    f"{START}{END}",
    f"a {START} b {END} c",
    f"a{START}b{END}c",
    START.upper(),
    f"{END.upper()} {END.title()} <|EndOfText|>",
    "<|startoftext |> < |endoftext|> <|start|> <|endoftext",
    "<|startoftext|> <|startoftext|> heart <|endoftext|> <|endoftext|>",
    "heart</w> </w> <w> </W>",
    "Ġheart ĠĊ Ā ā",
    "<pad> [PAD] [CLS] <unk> <s> </s>",
    "<echo> an <echo> heart <ECHO>echo<echo>",
    "a <|endoftext|>" * 40,
    '"quoted" ‘single’ “double” «guillemets» 「corner」',
    "ellipsis… dash– em—dash hyphen‐non‑breaking soft\u00adhyphen",
    "trailing space before end ",
    "line one\nline two\n\nline four",
    "a\u2000b\u2001c\u2002d\u2003e\u2004f\u2005g\u2006h\u2007i\u2008j\u202fk\u205fl\u180em",
    "1st 2nd 3rd 4ch 2CH ED ES A4C",
    "mixed123text456with789numbers",
    "ALL CAPS and MiXeD CaSe",
    "semi;colon:colon,comma.period!bang?question",
    "a/b\\c|d&e^f%g$h#i@j!k~l`m",
    "“It’s — naïve…”",
]


def byte_symbols():
    """The characters that stand for the bytes 0 to 255."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]


def train():
    """Byte pairs by count, ties by spelling, as in Sennrich et al. 2016."""
    tokenizer = CLIPTokenizer(vocab={s: i for i, s in enumerate([*byte_symbols(), START, END])}, merges=[])
    backend = tokenizer.backend_tokenizer
    text = backend.normalizer.normalize_str(CORPUS)
    counts = Counter(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    words = {(*word[:-1], word[-1] + "</w>"): n for word, n in counts.items()}
    merges = []
    while len(merges) < MERGES:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = {}
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                both = word[i : i + 2] == best
                out.append("".join(best) if both else word[i])
                i += 1 + both
            merged[tuple(out)] = merged.get(tuple(out), 0) + n
        words = merged
    symbols = byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(pair) for pair in merges), START, END]
    assert len(set(tokens)) == len(tokens)
    return {token: i for i, token in enumerate(tokens)}, merges


def token(text, normalized, typed):
    properties = {"content": text, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", **properties} if typed else properties


def write(folder, name, value):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def layouts(vocab, merges):
    """The folders: the settings of each beside a vocabulary that is stored once."""
    shutil.rmtree(HERE, ignore_errors=True)
    write(HERE, "vocab.json", vocab)
    (HERE / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8"
    )

    # Stable Diffusion 1.x, as transformers 4.22 wrote it.
    folder = HERE / "sd1"
    roles = {role: token(text, True, False) for role, text in [("bos_token", START), ("eos_token", END), ("unk_token", END)]}
    write(folder, "special_tokens_map.json", roles | {"pad_token": END})
    roles = {role: token(text, True, True) for role, text in [("bos_token", START), ("eos_token", END), ("unk_token", END)]}
    write(
        folder,
        "tokenizer_config.json",
        roles
        | {
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": LENGTH,
            "name_or_path": "openai/clip-vit-large-patch14",
            "pad_token": END,
            "special_tokens_map_file": "./special_tokens_map.json",
            "tokenizer_class": "CLIPTokenizer",
        },
    )

    # Stable Diffusion 2.x: another padding token.
    folder = HERE / "sd2"
    write(folder, "special_tokens_map.json", {"bos_token": token(START, True, False), "eos_token": token(END, True, False), "pad_token": "!", "unk_token": token(END, True, False)})
    write(
        folder,
        "tokenizer_config.json",
        roles
        | {
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": LENGTH,
            "name_or_path": "stabilityai/stable-diffusion-2",
            "pad_token": "<|endoftext|>",
            "special_tokens_map_file": "./special_tokens_map.json",
            "tokenizer_class": "CLIPTokenizer",
        },
    )

    # transformers 4.34 and later: every added token in the settings; with a token that textual inversion added.
    folder = HERE / "v4"
    listed = {}
    for text, normalized, special in [(END, False, True), (START, True, True), ("<echo>", True, False)]:
        listed[str(vocab.get(text, len(vocab)))] = token(text, normalized, False) | {"special": special}
    write(
        folder,
        "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": listed,
            "bos_token": START,
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            "eos_token": END,
            "errors": "replace",
            "model_max_length": LENGTH,
            "pad_token": END,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": END,
        },
    )

    # The vocabulary alone, with a token in the file that older versions kept them in.
    folder = HERE / "bare"
    write(folder, "added_tokens.json", {"<echo>": len(vocab)})

    # transformers 5: tokenizer.json and its settings.
    for name, roles in {"v5": {}, "v5_pad": {"pad_token": "!"}}.items():
        tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH, **roles)
        if name == "v5_pad":
            tokenizer.add_tokens(["<echo>"])
        tokenizer.save_pretrained(HERE / name)


def main():
    vocab, merges = train()
    layouts(vocab, merges)
    prompts = list(PROMPTS)
    numbers = random.Random(0)
    words = re.findall(r"\S+", CORPUS)
    for _ in range(60):
        parts = numbers.choices(words, k=numbers.randint(1, 24))
        prompts.append("".join(numbers.choice([p, p.upper(), p.title()]) + numbers.choice([" ", "  ", "", "\t", "-"]) for p in parts))
    for _ in range(60):
        # Any characters at all.
        top = numbers.choice([0x80, 0x250, 0x3000, 0x10000, 0x20000])
        picked = [chr(c) for c in (numbers.randrange(top) for _ in range(40)) if not 0xD800 <= c < 0xE000]
        # Versions of Unicode differ in what they know.
        prompts.append("".join(c for c in picked if unicodedata.category(c) != "Cn"))
    ids = {}
    for folder in sorted(path for path in HERE.iterdir() if path.is_dir()):
        whole = FIXTURES / "tokenizer-whole"
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(folder, whole)
        if not (whole / "tokenizer.json").exists():
            for name in ("vocab.json", "merges.txt"):
                shutil.copy(HERE / name, whole / name)
        tokenizer = CLIPTokenizer.from_pretrained(whole)
        found = [tokenizer(p, padding="max_length", max_length=LENGTH, truncation=True).input_ids for p in prompts]
        cut = [len(tokenizer(p).input_ids) > LENGTH for p in prompts]
        assert all(len(i) == LENGTH for i in found)
        pad = tokenizer.pad_token_id
        # Without the padding.
        kept = [i[: LENGTH - next((n for n, x in enumerate(reversed(i)) if x != pad), LENGTH)] for i in found]
        ids[folder.name] = {"pad": pad, "ids": kept, "cut": cut}
        print(folder.name, "pads with", pad, "; cut:", sum(cut), "; tokens:", sum(map(len, kept)))
        shutil.rmtree(whole)
    print(len(prompts), "prompts,", len(vocab), "tokens")
    file = HERE / "ids.json"
    file.write_text(json.dumps({"prompts": prompts, "folders": ids}) + "\n")
    print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
