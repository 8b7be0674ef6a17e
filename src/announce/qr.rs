//! A QR code in half-block characters: two rows of modules a line.
//!
//! Pure. Light modules are drawn and dark ones left out, which is right on a
//! dark background, and which phones read on a light one as well (inverted).

use qrcode::{Color, EcLevel, QrCode};

/// The quiet zone of ISO/IEC 18004 is 4 modules; 2 are enough for every reader on a screen.
const QUIET: usize = 2;

/// The picture, a line for every two rows; none where the text is too long for one.
#[must_use]
pub fn half_blocks(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = code.width();
    let side = width + 2 * QUIET;
    let modules = code.to_colors();
    let is_light = |x: usize, y: usize| {
        let inside = (QUIET..QUIET + width).contains(&x) && (QUIET..QUIET + width).contains(&y);
        // An odd last row has nothing below it.
        y < side && (!inside || modules[(y - QUIET) * width + x - QUIET] == Color::Light)
    };
    let line = |y: usize| -> String {
        let block = |x: usize| match (is_light(x, y), is_light(x, y + 1)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        };
        (0..side).map(block).collect()
    };
    Some((0..side).step_by(2).map(line).collect::<Vec<_>>().join("\n"))
}
