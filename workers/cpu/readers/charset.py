"""Decoding of text whose encoding is declared, as in web pages and e-mail. A declaration may be missing or wrong."""

from shared.documents.text_encoding import decode_labelled

# References such as &#146; and wrong labels put these control codes where Windows-1252 has quotes, dashes and the euro sign.
_C1 = {
    code: bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_C1.pop(0x85, None)


def decode_declared(data: bytes, label: str) -> str:
    """Decode bytes that are said to be in the encoding ``label``, maybe "". Bytes that are wrong cost one character each."""
    decoded = decode_labelled(data, label)
    return data.decode("cp1252", "replace") if decoded is None else decoded.text


def repair_controls(text: str) -> str:
    """Text with C1 control codes replaced by what was meant."""
    return text if text.isascii() else text.translate(_C1)
