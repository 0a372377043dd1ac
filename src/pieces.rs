//! Large byte strings in pieces, whose memory returns to the system when they are dropped.

use std::io::{self, Write};

use memmap2::MmapMut;

/// Size of a piece.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes in memory mappings of their own, so that the size of the process does not depend on how
/// the C library reuses freed memory. Memory that is not written to is not resident.
#[derive(Debug, Default)]
pub struct Pieces {
    mappings: Vec<MmapMut>,
    bytes: usize,
}

impl Pieces {
    /// Returns the number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns a piece by its index. Returns `None` behind the last one.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let mapping = self.mappings.get(index)?;
        let length = (self.bytes - index * PIECE_BYTES).min(PIECE_BYTES);
        Some(&mapping[..length])
    }

    /// Returns the pieces in order. None of them is empty.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.mappings.len()).filter_map(|index| self.get(index))
    }
}

impl Write for Pieces {
    /// Appends bytes. Fails if the system has no memory for another piece.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let start = self.bytes % PIECE_BYTES;
        if start == 0 {
            self.mappings.push(MmapMut::map_anon(PIECE_BYTES)?);
        }
        let length = bytes.len().min(PIECE_BYTES - start);
        let mapping = self.mappings.last_mut().expect("a piece is added above before the first byte");
        mapping[start..start + length].copy_from_slice(&bytes[..length]);
        self.bytes += length;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_joined_are_what_was_written() {
        let mut pieces = Pieces::default();
        assert_eq!((pieces.bytes(), pieces.iter().count()), (0, 0));
        let mut expected = Vec::new();
        for length in [0, 1, PIECE_BYTES - 1, 0, PIECE_BYTES, 2 * PIECE_BYTES + 7, 100] {
            let bytes: Vec<u8> = (0..length).map(|index| (index * 31 + length) as u8).collect();
            pieces.write_all(&bytes).unwrap();
            expected.extend(bytes);
        }
        assert_eq!(pieces.bytes(), expected.len());
        assert_eq!(pieces.iter().collect::<Vec<_>>().concat(), expected);
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        assert_eq!(pieces.get(pieces.iter().count()), None);
    }
}
