//! One line of a drawing, bounded in width, and the small texts on it.

use std::fmt::Write;

/// What a piece of text is, which decides its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Service,
    Bar,
    Ok,
    Error,
}

impl Style {
    /// The parameter of an ANSI "select graphic rendition" sequence.
    const fn ansi(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Bold => Some(1),
            Self::Dim => Some(2),
            Self::Service => Some(36),
            Self::Bar => Some(34),
            Self::Ok => Some(32),
            Self::Error => Some(31),
        }
    }
}

/// A line under construction. Text over the limit is cut, with an ellipsis.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    used: usize,
    limit: usize,
    color: bool,
}

impl Line {
    pub(super) const fn new(limit: usize, color: bool) -> Self {
        Self {
            text: String::new(),
            used: 0,
            limit,
            color,
        }
    }

    /// Characters so far.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Gives the line more room.
    pub(super) const fn widen(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Adds `text`, which must hold no control characters: see [`clean`].
    pub(super) fn push(&mut self, style: Style, text: &str) {
        let room = self.limit.saturating_sub(self.used);
        if text.is_empty() || room == 0 {
            return;
        }
        let ansi = style.ansi().filter(|_| self.color);
        if let Some(parameter) = ansi {
            let _ = write!(self.text, "\x1b[{parameter}m");
        }
        if text.chars().nth(room).is_none() {
            self.used += text.chars().count();
            self.text.push_str(text);
        } else {
            self.used = self.limit;
            self.text.extend(text.chars().take(room - 1));
            self.text.push('…');
        }
        if ansi.is_some() {
            self.text.push_str("\x1b[0m");
        }
    }

    /// Adds spaces up to `column`, which may be over the limit.
    pub(super) fn pad_to(&mut self, column: usize) {
        while self.used < column {
            self.text.push(' ');
            self.used += 1;
        }
    }

    /// The text, without spaces at its end, and a newline.
    pub(super) fn finish(mut self) -> String {
        self.text.truncate(self.text.trim_end_matches(' ').len());
        self.text.push('\n');
        self.text
    }
}

/// At most `limit` characters of foreign text, and a sign of it when there are more, fit to stand on a line: line breaks
/// become spaces; what could drive a terminal, turn the writing direction or hide is replaced.
pub(in crate::pipeline) fn clean(text: &str, limit: usize) -> String {
    let mut chars = text.chars();
    let mut clean: String = chars.by_ref().take(limit).map(harmless).collect();
    if chars.next().is_some() {
        clean.pop();
        clean.push('…');
    }
    clean
}

fn harmless(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        // Zero-width and bidirectional formatting, line and paragraph separators, tags.
        '\u{ad}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// A duration with three digits, cut and not rounded: `850ns`, `1.23ms`, `75.2s`.
pub(in crate::pipeline) fn duration(nanos: u64) -> String {
    let (unit, name) = match nanos {
        0..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (whole, part) = (nanos / unit, nanos % unit);
    match whole {
        0..10 => format!("{whole}.{:02}{name}", part * 100 / unit),
        10..100 => format!("{whole}.{}{name}", part * 10 / unit),
        _ => format!("{whole}{name}"),
    }
}

/// `width` characters that show where `start..end` lies in `from..to`, to an eighth of a character at its end; the shortest
/// span still shows.
pub(super) fn bar(start: u64, end: u64, from: u64, to: u64, width: usize) -> String {
    const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let total = u128::from(to.saturating_sub(from)).max(1);
    let scale = |time: u64| {
        let passed = u128::from(time.clamp(from, to.max(from)) - from);
        // At most 8 * width, which fits whatever holds the width.
        (passed * 8 * width as u128 / total) as usize
    };
    let (first, last) = (scale(start), scale(end));
    let cell = (first / 8).min(width - 1);
    let mut bar = " ".repeat(cell);
    // A bar begins at a character's left edge: there are no blocks that are filled from the right.
    let eighths = if last - first < 8 {
        (last - first).max(1)
    } else {
        last - cell * 8
    };
    bar.extend(std::iter::repeat_n('█', eighths / 8));
    bar.extend((eighths % 8).checked_sub(1).map(|index| EIGHTHS[index]));
    bar.extend(std::iter::repeat_n(
        ' ',
        width.saturating_sub(bar.chars().count()),
    ));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_three_digits() {
        let drawn = [
            0,
            850,
            1_000,
            12_345,
            999_999,
            1_234_567,
            75_250_000_000,
            u64::MAX,
        ]
        .map(duration);
        let expected = [
            "0ns",
            "850ns",
            "1.00µs",
            "12.3µs",
            "999µs",
            "1.23ms",
            "75.2s",
            "18446744073s",
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn bars_stand_where_the_time_was() {
        assert_eq!(bar(0, 100, 0, 100, 4), "████");
        assert_eq!(bar(50, 100, 0, 100, 4), "  ██");
        assert_eq!(bar(0, 25, 0, 100, 4), "█   ");
        assert_eq!(bar(25, 63, 0, 100, 4), " █▌ ");
        assert_eq!(bar(100, 100, 0, 100, 4), "   ▏");
        assert_eq!(bar(7, 7, 7, 7, 4), "▏   ");
    }

    #[test]
    fn a_line_is_cut_at_its_limit_whatever_its_colours() {
        for color in [false, true] {
            let mut line = Line::new(6, color);
            line.push(Style::Error, "abc");
            line.push(Style::Plain, "defg");
            line.push(Style::Plain, "h");
            assert_eq!(line.used(), 6);
            let expected = if color {
                "\x1b[31mabc\x1b[0mde…\n"
            } else {
                "abcde…\n"
            };
            assert_eq!(line.finish(), expected);
        }
    }

    proptest! {
        #[test]
        fn a_bar_is_as_wide_as_asked_and_never_empty(times: [u64; 4], width in 1_usize..60) {
            let [start, end, from, to] = times;
            let bar = bar(start, end.max(start), from, to, width);
            prop_assert_eq!(bar.chars().count(), width);
            prop_assert!(!bar.trim().is_empty());
        }

        #[test]
        fn clean_text_is_harmless_and_bounded(text: String, limit in 1_usize..40) {
            let clean = clean(&text, limit);
            prop_assert!(clean.chars().count() <= limit);
            prop_assert!(!clean.chars().any(char::is_control));
        }
    }
}
