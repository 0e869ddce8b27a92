# -*- coding: utf-8 -*-
from __future__ import unicode_literals

import unittest

import words


class CountTest(unittest.TestCase):
    def test_counts(self):
        self.assertEqual(words.count("to be or not to be"), {"to": 2, "be": 2, "or": 1, "not": 1})

    def test_letters_beyond_ascii(self):
        self.assertEqual(words.count("Ätna ätna"), {"ätna": 2})

    def test_bytes_are_utf8(self):
        self.assertEqual(words.count("né né".encode("utf-8")), {"né": 2})


if __name__ == "__main__":
    unittest.main()
