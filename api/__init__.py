"""The HTTP face: parse, call one verb, render. It loads neither models, nor the index, nor a parser of documents."""
