//! A deflate encoder for payloads of a few hundred bytes, the size of nearly every session.
//!
//! General encoders spend microseconds clearing tables before they look at the first byte. This one
//! finds its matches with a table that fits the input and writes a single block with the fixed codes
//! of RFC 1951 section 3.2.6, which need no table at all. Fixed codes suit some texts badly (digits,
//! one repeated phrase), so the size that fitted codes would reach is estimated from the frequencies,
//! and [`compress`] declines where it would fall too far behind: the caller then takes the general
//! encoder. Django reads any zlib stream.

/// The longest input that is taken on.
pub(crate) const MAX_INPUT: usize = 1024;

const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;
const HASH_BITS: u32 = 10;
/// How many runs of the same hash are compared.
const MAX_CHAIN: usize = 4;

const END_OF_BLOCK: usize = 256;
const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
];
const LENGTH_BITS: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 20] =
    [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769];

/// What a payload becomes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A whole zlib stream.
    Compressed(Vec<u8>),
    /// It is better left as it is.
    Plain,
    /// A general encoder would do clearly better.
    Declined,
}

/// Compresses `input` into a zlib stream if that is worth it.
pub(crate) fn compress(input: &[u8]) -> Verdict {
    if input.len() > MAX_INPUT {
        return Verdict::Declined;
    }
    let mut encoder = Encoder::new(input.len());
    encoder.encode(input);
    let fitted = (ZLIB_BYTES + encoder.fitted_bits(input).div_ceil(8)).min(input.len());
    let stream = encoder.bits.finish(adler32(input));
    // Django keeps a compressed form only if it saves more than one byte.
    let saves = stream.len() + 1 < input.len();
    let ours = if saves { stream.len() } else { input.len() };
    // Base64 makes 4 of 3 bytes; dot, time stamp and signature take 52 more. The promise is 1.3 times
    // Django's length; the rest of the way to that is left for the matches zlib finds and we do not.
    if stored_length(ours) * 100 > stored_length(fitted) * 118 {
        return Verdict::Declined;
    }
    if saves { Verdict::Compressed(stream) } else { Verdict::Plain }
}

/// Head and checksum of a zlib stream.
const ZLIB_BYTES: usize = 6;

fn stored_length(bytes: usize) -> usize {
    bytes * 4 / 3 + 52
}

/// Writes literals and matches as it finds them, and counts the symbols.
struct Encoder {
    bits: Bits,
    symbols: [u16; 288],
    distances: [u16; 20],
    /// Matches.
    matches: u32,
    /// Bytes that matches stand for.
    matched: u32,
    /// Bits that no code saves: the extra bits of lengths and distances.
    extra: u32,
}

impl Encoder {
    fn new(length: usize) -> Self {
        Self {
            bits: Bits::new(length),
            symbols: [0; 288],
            distances: [0; 20],
            matches: 0,
            matched: 0,
            extra: 0,
        }
    }

    /// Writes the one block.
    fn encode(&mut self, input: &[u8]) {
        let mut finder = Finder::new();
        let mut at = 0;
        // Final block, fixed codes.
        self.bits.push(0b011, 3);
        while let Some(&[a, b, c]) = input[at..].first_chunk() {
            let (length, distance) = finder.visit(input, at, [a, b, c]);
            if length < MIN_MATCH {
                self.literal(a);
                at += 1;
                continue;
            }
            self.repeat(length, distance);
            for covered in at + 1..at + length {
                let Some(&run) = input[covered..].first_chunk() else { break };
                finder.insert(covered, run);
            }
            at += length;
        }
        for &byte in &input[at..] {
            self.literal(byte);
        }
        let (code, bits) = FIXED[END_OF_BLOCK];
        self.bits.push(code.into(), bits.into());
        self.symbols[END_OF_BLOCK] = 1;
    }

    #[inline]
    fn literal(&mut self, byte: u8) {
        let (code, bits) = FIXED[usize::from(byte)];
        self.bits.push(code.into(), bits.into());
        self.symbols[usize::from(byte)] += 1;
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both are at most MAX_INPUT")]
    fn repeat(&mut self, length: usize, distance: usize) {
        let (length, distance) = (length as u16, distance as u16);
        let (length_code, distance_code) = (length_code(length), distance_code(distance));
        let (code, bits) = FIXED[257 + length_code];
        self.bits.push(code.into(), bits.into());
        let length_bits = LENGTH_BITS[length_code].into();
        self.bits.push((length - LENGTH_BASE[length_code]).into(), length_bits);
        self.bits.push(((distance_code as u8).reverse_bits() >> 3).into(), 5);
        let distance_bits = distance_bits(distance_code);
        self.bits.push((distance - DISTANCE_BASE[distance_code]).into(), distance_bits);
        self.symbols[257 + length_code] += 1;
        self.distances[distance_code] += 1;
        self.extra += length_bits + distance_bits;
        self.matches += 1;
        self.matched += u32::from(length);
    }

    /// The least that codes fitted to the frequencies could need, their description included.
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_INPUT")]
    fn fitted_bits(&self, input: &[u8]) -> usize {
        // JSON is ASCII, and then the literals beyond it need no look.
        let literals = if input.is_ascii() { 0..128 } else { 0..END_OF_BLOCK };
        let (literal_weight, literals) = weigh(&self.symbols[literals]);
        let (length_weight, lengths) = weigh(&self.symbols[END_OF_BLOCK..END_OF_BLOCK + 30]);
        let (distance_weight, distances) = weigh(&self.distances);
        let steps = input.len() as u32 - self.matched + self.matches + 1;
        let symbols = entropy(steps, literal_weight + length_weight);
        let described = literals + lengths + distances;
        let bits = 60 + 3 * described + symbols + entropy(self.matches, distance_weight);
        (bits + self.extra) as usize
    }
}

/// Where each run of three bytes was seen before, newest first.
struct Finder {
    /// Position plus one of the newest run with this hash; zero for none.
    newest: [u16; 1 << HASH_BITS],
    /// The same for the run before the one at each position.
    older: [u16; MAX_INPUT],
}

impl Finder {
    fn new() -> Self {
        Self { newest: [0; 1 << HASH_BITS], older: [0; MAX_INPUT] }
    }

    /// Notes the run at this position and returns the newest one like it, plus one.
    #[inline]
    fn insert(&mut self, at: usize, [a, b, c]: [u8; MIN_MATCH]) -> u16 {
        let run = u32::from_le_bytes([a, b, c, 0]);
        let hash = (run.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize;
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_INPUT")]
        let newest = std::mem::replace(&mut self.newest[hash], at as u16 + 1);
        self.older[at % MAX_INPUT] = newest;
        newest
    }

    /// Notes the run at this position and returns the longest match for it, as length and distance.
    #[inline]
    fn visit(&mut self, input: &[u8], at: usize, run: [u8; MIN_MATCH]) -> (usize, usize) {
        let mut candidate = self.insert(at, run);
        if candidate == 0 {
            return (0, 0);
        }
        let ahead = &input[at..input.len().min(at + MAX_MATCH)];
        let (mut length, mut distance) = (MIN_MATCH - 1, 0);
        for _ in 0..MAX_CHAIN {
            let Some(from) = usize::from(candidate).checked_sub(1) else { break };
            let behind = &input[from..];
            if behind[length] == ahead[length] {
                let common = common_prefix(ahead, behind);
                if common > length {
                    (length, distance) = (common, at - from);
                    if common == ahead.len() {
                        break;
                    }
                }
            }
            candidate = self.older[from % MAX_INPUT];
        }
        if distance == 0 { (0, 0) } else { (length, distance) }
    }
}

/// The number of leading bytes that are equal; `behind` is the longer one.
#[inline]
fn common_prefix(ahead: &[u8], behind: &[u8]) -> usize {
    let mut common = 0;
    for (a, b) in ahead.chunks_exact(8).zip(behind.chunks_exact(8)) {
        let word = |bytes: &[u8]| u64::from_le_bytes(std::array::from_fn(|index| bytes[index]));
        let difference = word(a) ^ word(b);
        if difference != 0 {
            return common + (difference.trailing_zeros() / 8) as usize;
        }
        common += 8;
    }
    let rest = ahead[common..].iter().zip(&behind[common..]);
    common + rest.take_while(|(a, b)| a == b).count()
}

/// Least significant bit first, as deflate wants it.
struct Bits {
    out: Vec<u8>,
    /// Bytes of `out` that are written.
    length: usize,
    pending: u64,
    count: u32,
}

impl Bits {
    /// For an input of this length, of which no byte takes more than nine bits.
    fn new(input: usize) -> Self {
        let mut out = vec![0; input + input / 8 + 32];
        // Deflate with a 32 kB window, fastest algorithm, no dictionary.
        out[..2].copy_from_slice(&[0x78, 0x01]);
        Self { out, length: 2, pending: 0, count: 0 }
    }

    /// At most 13 bits at a time.
    #[inline]
    fn push(&mut self, bits: u64, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        if self.count >= 32 {
            #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
            let word = (self.pending as u32).to_le_bytes();
            self.out[self.length..self.length + 4].copy_from_slice(&word);
            self.length += 4;
            self.pending >>= 32;
            self.count -= 32;
        }
    }

    fn finish(mut self, checksum: u32) -> Vec<u8> {
        let rest = self.count.div_ceil(8) as usize;
        self.out.truncate(self.length);
        self.out.extend(&self.pending.to_le_bytes()[..rest]);
        self.out.extend(checksum.to_be_bytes());
        self.out
    }
}

/// The sum of each count times its logarithm, in 1/256, and how many of them are not zero.
#[inline]
fn weigh(counts: &[u16]) -> (u32, u32) {
    let (mut weight, mut used) = (0, 0);
    for &count in counts {
        // Without a branch: which symbols occur is beyond any prediction.
        used += u32::from(count > 0);
        weight += WEIGHT[usize::from(count).min(MAX_INPUT)];
    }
    (weight, used)
}

/// The bits that the best code would take for so many symbols with this weight, give or take a few.
fn entropy(total: u32, weight: u32) -> u32 {
    (total * log2(total.max(1))).saturating_sub(weight) >> 8
}

/// Each count times its logarithm, in 1/256.
#[expect(clippy::cast_possible_truncation, reason = "at most MAX_INPUT")]
const WEIGHT: [u32; MAX_INPUT + 1] = {
    let mut weights = [0; MAX_INPUT + 1];
    let mut count = 1;
    while count <= MAX_INPUT {
        weights[count] = count as u32 * log2(count as u32);
        count += 1;
    }
    weights
};

/// Logarithm to base two in 1/256, by the line between powers of two; it errs by less than 0.09.
const fn log2(number: u32) -> u32 {
    let whole = number.ilog2();
    (whole << 8) + ((number << 8 >> whole) & 0xff)
}

/// The fixed codes with their lengths, bits in the order in which they are written.
#[expect(clippy::cast_possible_truncation, reason = "at most 9 bits")]
const FIXED: [(u16, u8); 288] = {
    let mut codes = [(0, 0); 288];
    let mut symbol = 0;
    while symbol < 288 {
        let (code, bits) = fixed_code(symbol);
        codes[symbol] = (code.reverse_bits() >> (16 - bits), bits as u8);
        symbol += 1;
    }
    codes
};

#[expect(clippy::cast_possible_truncation, reason = "symbols are below 288")]
const fn fixed_code(symbol: usize) -> (u16, usize) {
    let symbol = symbol as u16;
    match symbol {
        0..=143 => (0x30 + symbol, 8),
        144..=255 => (0x190 + symbol - 144, 9),
        256..=279 => (symbol - 256, 7),
        _ => (0xc0 + symbol - 280, 8),
    }
}

#[inline]
fn length_code(length: u16) -> usize {
    LENGTH_CODE[usize::from(length) - MIN_MATCH] as usize
}

#[expect(clippy::cast_possible_truncation, reason = "29 codes")]
const LENGTH_CODE: [u8; MAX_MATCH - MIN_MATCH + 1] = {
    let mut codes = [0; MAX_MATCH - MIN_MATCH + 1];
    let mut code = 0;
    while code < 29 {
        let mut length = LENGTH_BASE[code] as usize;
        while length <= MAX_MATCH {
            codes[length - MIN_MATCH] = code as u8;
            length += 1;
        }
        code += 1;
    }
    codes
};

/// Two codes per power of two from 5 on.
#[inline]
fn distance_code(distance: u16) -> usize {
    let before = u32::from(distance - 1);
    if before < 4 {
        return before as usize;
    }
    let power = before.ilog2();
    (2 * power + (before >> (power - 1) & 1)) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "20 codes")]
fn distance_bits(code: usize) -> u32 {
    (code as u32 / 2).saturating_sub(1)
}

/// The checksum of RFC 1950; inputs are far below the length at which the sums need reducing.
fn adler32(input: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    for &byte in input {
        a += u32::from(byte);
        b += a;
    }
    ((b % 65521) << 16) | (a % 65521)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_distance_has_the_code_of_the_standard() {
        for length in 3..=258 {
            let code = length_code(length);
            let extra = length - LENGTH_BASE[code];
            assert!(extra < 1 << LENGTH_BITS[code] || length == 258, "{length}");
        }
        assert_eq!(length_code(258), 28);
        for distance in 1..1024 {
            let code = distance_code(distance);
            assert!(distance - DISTANCE_BASE[code] < 1 << distance_bits(code), "{distance}");
        }
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "random below small numbers")]
    fn another_decoder_reads_what_is_written() {
        let mut state = 1_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut compressed = 0;
        for round in 0..4000 {
            let alphabet = 1 + random(90);
            let length = random(if round % 10 == 0 { 1024 } else { 400 }) as usize;
            let mut input = Vec::new();
            while input.len() < length {
                if random(4) == 0 && !input.is_empty() {
                    let from = random(input.len() as u64) as usize;
                    let to = (from + random(300) as usize).min(input.len());
                    input.extend_from_within(from..to);
                } else {
                    input.push(b' ' + random(alphabet) as u8);
                }
            }
            input.truncate(MAX_INPUT);
            if let Verdict::Compressed(stream) = compress(&input) {
                compressed += 1;
                assert!(stream.len() + 1 < input.len());
                let mut out = vec![0; input.len()];
                let read = libdeflater::Decompressor::new().zlib_decompress(&stream, &mut out);
                assert_eq!(read, Ok(input.len()));
                assert_eq!(out, input);
            }
        }
        assert!(compressed > 1000, "{compressed}");
    }
}
