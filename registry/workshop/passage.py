"""A text as the windows of tokens in which models read it."""


def windows(ids: list[int], length: int, adds_bos: bool) -> list[list[int]]:
    """Cut `ids` into windows of at most `length` tokens, each with the first id in front where that is BOS."""
    bos = ids[:1] if adds_bos else []
    words, step = ids[len(bos) :], length - len(bos)
    return [bos + words[at : at + step] for at in range(0, len(words), step)]


def predictions(cut: list[list[int]]) -> int:
    """Count the tokens that have one before them in their window."""
    return sum(len(window) - 1 for window in cut)


def first(cut: list[list[int]], most: int) -> list[list[int]]:
    """Give the windows, the last one shortened, that hold at most `most` predictions."""
    kept: list[list[int]] = []
    for window in cut:
        window = window[: most - predictions(kept) + 1]
        if len(window) > 1:
            kept.append(window)
    return kept
