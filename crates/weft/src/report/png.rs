//! A minimal PNG encoder: images of 8-bit palette indexes or colors, stored without compression.
//!
//! The images are a few kilobytes inside a page, so size matters less than having no dependency.
//! Reference: PNG Specification (Third Edition), sections 5, 10 and 11; RFC 1950 and RFC 1951 §3.2.4.

/// Color types.
const RGB: u8 = 2;
const INDEXED: u8 = 3;

/// An RGBA palette entry.
pub(crate) type Rgba = [u8; 4];

/// Encodes `width × height` palette indexes, row by row, with a palette of 256 entries.
pub(crate) fn encode(width: usize, indexes: &[u8], palette: &[Rgba; 256]) -> Vec<u8> {
    let mut out = begin([width, indexes.len()], INDEXED);
    chunk(&mut out, *b"PLTE", &palette.iter().flat_map(|c| [c[0], c[1], c[2]]).collect::<Vec<u8>>());
    chunk(&mut out, *b"tRNS", &palette.map(|c| c[3]));
    finish(out, indexes, width)
}

/// Encodes colors, three bytes each of `width` pixels a row.
pub(crate) fn encode_rgb(width: usize, colors: &[u8]) -> Vec<u8> {
    finish(begin([width, colors.len() / 3], RGB), colors, 3 * width)
}

/// The signature and header of an image of so many pixels.
fn begin([width, pixels]: [usize; 2], color: u8) -> Vec<u8> {
    let height = pixels.checked_div(width).unwrap_or(0);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::with_capacity(13);
    header.extend_from_slice(&(width as u32).to_be_bytes());
    header.extend_from_slice(&(height as u32).to_be_bytes());
    header.extend_from_slice(&[8, color, 0, 0, 0]); // 8 bits, deflate, adaptive filters, not interlaced
    chunk(&mut out, *b"IHDR", &header);
    out
}

/// The rows of an image, none of them filtered, and its end.
fn finish(mut out: Vec<u8>, data: &[u8], row_bytes: usize) -> Vec<u8> {
    let rows: Vec<u8> = data.chunks_exact(row_bytes.max(1)).flat_map(|row| std::iter::once(0).chain(row.iter().copied())).collect();
    chunk(&mut out, *b"IDAT", &stored(&rows));
    chunk(&mut out, *b"IEND", &[]);
    out
}

/// A PNG as a `data:` address.
pub(crate) fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(png))
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&kind);
    out.extend_from_slice(data);
    let sum = crc32(&out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// A zlib stream of stored blocks.
fn stored(data: &[u8]) -> Vec<u8> {
    const LARGEST_BLOCK: usize = 65_535;
    let mut out = vec![0x78, 0x01];
    let blocks = data.len().div_ceil(LARGEST_BLOCK).max(1);
    for (i, block) in data.chunks(LARGEST_BLOCK).chain(data.is_empty().then_some(data)).enumerate() {
        out.push(u8::from(i + 1 == blocks));
        let length = block.len() as u16;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&adler32(data).to_be_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 })
    })
}

fn adler32(data: &[u8]) -> u32 {
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for group in data.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let index = (bits >> (18 - 6 * i)) & 63;
            out.push(if i <= group.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_base64_match_published_vectors() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11E6_0398);
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (input, expected) in cases {
            assert_eq!(base64(input.as_bytes()), expected);
        }
    }

    #[test]
    fn a_large_image_is_split_into_blocks_that_say_their_lengths() {
        let stream = stored(&vec![7u8; 70_000]);
        assert_eq!(stream.len(), 2 + 5 + 65_535 + 5 + 4_465 + 4);
        assert_eq!(stream[2], 0);
        assert_eq!(&stream[7 + 65_535..7 + 65_535 + 3], &[1, 0x71, 0x11]);
        assert_eq!(stored(&[]), [0x78, 0x01, 1, 0, 0, 0xff, 0xff, 0, 0, 0, 1]);
    }

    #[test]
    fn the_header_holds_the_size() {
        let png = encode(3, &[0; 6], &[[0; 4]; 256]);
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!(&png[16..24], &[0, 0, 0, 3, 0, 0, 0, 2]);
        assert_eq!(&png[png.len() - 8..png.len() - 4], b"IEND");
        let png = encode_rgb(2, &[7; 18]);
        assert_eq!(&png[16..26], &[0, 0, 0, 2, 0, 0, 0, 3, 8, 2]);
        let rows = png.windows(7).filter(|bytes| *bytes == [0, 7, 7, 7, 7, 7, 7]).count();
        assert_eq!(rows, 3, "each row has its filter's number first");
    }
}
