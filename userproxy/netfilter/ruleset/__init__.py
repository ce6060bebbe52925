"""The ruleset as a value: what the kernel is told once, whatever the number of Services. Pure.

`language` is what rules are written in, `sets` the maps and sets that they look things up in, `chains` the
rules. Rules are static; Services are elements of maps and sets (`userproxy.netfilter.elements`). README.md in
the folder above draws the hooks and says why each rule and each priority is as it is.
"""
