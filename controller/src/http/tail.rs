//! The last lines of an output: pieces are not cut at line ends, so the first one may begin before them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::api::output::{Data, OutputPiece};

use super::lines::content;

/// Takes the first `lines` lines off a piece.
pub(super) fn skip_lines(piece: &mut OutputPiece, lines: i64) {
    if lines <= 0 || matches!(piece.data, Data::Gap(_)) {
        return;
    }
    let bytes = content(&piece.data);
    let nth = usize::try_from(lines - 1).unwrap_or(usize::MAX);
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index);
    let Some(end) = ends.into_iter().nth(nth) else { return };
    let rest = &bytes[end + 1..];
    piece.offset += i64::try_from(end + 1).unwrap_or(0);
    piece.data = match std::str::from_utf8(rest) {
        Ok(text) => Data::Text(text.to_owned()),
        Err(_) => Data::Base64(STANDARD.encode(rest)),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_off_and_the_offset_follows() {
        for (data, lines, want, offset) in [
            (Data::Text("a\nb\nc".to_owned()), 0, Data::Text("a\nb\nc".to_owned()), 10),
            (Data::Text("a\nb\nc".to_owned()), 1, Data::Text("b\nc".to_owned()), 12),
            (Data::Text("a\nb\nc".to_owned()), 2, Data::Text("c".to_owned()), 14),
            (Data::Text("a\nb\nc".to_owned()), 9, Data::Text("a\nb\nc".to_owned()), 10),
            (Data::Base64(STANDARD.encode(b"\xff\nb")), 1, Data::Text("b".to_owned()), 12),
            (Data::Base64(STANDARD.encode(b"a\n\xff")), 1, Data::Base64(STANDARD.encode(b"\xff")), 12),
            (Data::Gap(3), 1, Data::Gap(3), 10),
        ] {
            let mut piece = OutputPiece {
                position: 1,
                run_id: model::id::RunId(uuid::Uuid::nil()),
                target: "a".to_owned(),
                attempt: 1,
                stream: model::api::output::Stream::Stdout,
                time: jiff::Timestamp::UNIX_EPOCH,
                offset: 10,
                data,
            };
            skip_lines(&mut piece, lines);
            assert_eq!((piece.data, piece.offset), (want, offset));
        }
    }
}
