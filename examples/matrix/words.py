# -*- coding: utf-8 -*-
"""Counts words; runs on Python 2 and Python 3."""
from __future__ import unicode_literals

import re


def count(text):
    """Returns word -> how often text holds it, in lower case."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    found = {}
    for word in re.findall(r"\w+", text.lower(), re.UNICODE):
        found[word] = found.get(word, 0) + 1
    return found
