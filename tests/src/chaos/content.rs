//! What a job of the chaos writes: bytes that follow from its number, its run, the attempt and the stream alone, so that
//! whoever knows these knows every byte, and any prefix, without having seen one.

/// Jobs whose number is a multiple of this write bytes that are no text.
const BINARY_EVERY: u64 = 8;
const LINE: u64 = 72;

/// The two streams, by their numbers in the content.
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;

/// Makes the content piece after piece.
#[derive(Debug)]
pub struct Content {
    state: u64,
    at: u64,
    is_binary: bool,
}

impl Content {
    /// The content of one stream of an attempt of the run `run` of the job `number`.
    pub fn new(number: u64, run: &str, attempt: i32, stream: u8) -> Self {
        // FNV-1a, then the generator below.
        let bytes = number.to_be_bytes().into_iter().chain(run.bytes());
        let bytes = bytes.chain(attempt.to_be_bytes()).chain([stream]);
        let state = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { state: state | 1, at: 0, is_binary: number.is_multiple_of(BINARY_EVERY) }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// Xorshift: what is wanted is that no two places look alike, nothing more.
    fn byte(&mut self) -> u8 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.at += 1;
        let byte = self.state.to_be_bytes()[0];
        if self.is_binary {
            byte
        } else if self.at.is_multiple_of(LINE) {
            b'\n'
        } else {
            b' ' + byte % 95
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole_and_no_two_streams_are_alike() {
        for number in [7, 8] {
            let whole = Content::new(number, "r", 1, STDOUT).take(1000);
            let mut content = Content::new(number, "r", 1, STDOUT);
            let pieces = [content.take(1), content.take(499), content.take(0), content.take(500)].concat();
            assert_eq!(whole, pieces);
            for other in [
                Content::new(number, "r", 1, STDERR),
                Content::new(number, "s", 1, STDOUT),
                Content::new(number, "r", 2, STDOUT),
                Content::new(number + 8, "r", 1, STDOUT),
            ] {
                let mut other = other;
                assert_ne!(whole, other.take(1000));
            }
        }
        assert!(Content::new(7, "r", 1, STDOUT).take(500).is_ascii());
        assert!(!Content::new(8, "r", 1, STDOUT).take(500).is_ascii());
    }
}
