//! Text and grant in, new text out.
