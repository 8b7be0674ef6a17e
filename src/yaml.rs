//! YAML text to a tree of nodes with byte spans.
