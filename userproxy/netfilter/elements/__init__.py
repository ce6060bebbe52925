"""What changes with the Services: elements of the ruleset's maps and sets, made of captures and back. Pure.

An element is kept packed as the kernel holds it, so that 10,000 of them are compared as bytes.
"""
