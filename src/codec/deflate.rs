//! A deflate encoder for payloads of a few hundred bytes, the size of nearly every session.
//!
//! General encoders spend microseconds clearing tables before they look at the first byte. This one
//! finds its matches with a table that fits the input and writes a single block with the fixed codes
//! of RFC 1951 section 3.2.6, which need no table at all. Fixed codes suit some texts badly (digits,
//! one repeated phrase), so the size that fitted codes would reach is estimated from the frequencies,
//! and [`compress`] declines where it would fall too far behind: the caller then takes the general
//! encoder. Django reads any zlib stream.

/// The longest input that is taken on.
pub(crate) const MAX_INPUT: usize = 4096;

const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;
const HASH_BITS: u32 = 10;
const MAX_CHAIN: usize = 12;
/// Matches from here on are taken at once, without a look at the next position.
const GOOD_MATCH: usize = 32;

const END_OF_BLOCK: usize = 256;
const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
];
const LENGTH_BITS: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 24] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
    2049, 3073,
];

/// A literal, or a match of at least three bytes.
#[derive(Clone, Copy)]
enum Step {
    Literal(u8),
    Match { length: u16, distance: u16 },
}

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
    let parse = Parse::of(input);
    let fixed = 2 + parse.fixed_bits().div_ceil(8) + 4;
    let fitted = 2 + parse.fitted_bits().div_ceil(8) + 4;
    // Django keeps a compressed form only if it saves more than one byte.
    let saves = fixed + 1 < input.len();
    let ours = if saves { fixed } else { input.len() };
    // Base64 makes 4 of 3 bytes; dot, time stamp and signature take 52 more. The promise is 1.3 times
    // Django's length; the rest of the way to that is left for the matches zlib finds and we do not.
    if stored_length(ours) * 100 > stored_length(fitted.min(input.len())) * 118 {
        return Verdict::Declined;
    }
    if saves { Verdict::Compressed(parse.write(input, fixed)) } else { Verdict::Plain }
}

fn stored_length(bytes: usize) -> usize {
    bytes * 4 / 3 + 52
}

/// The input as literals and matches, with the frequency of every symbol.
struct Parse {
    steps: Vec<Step>,
    symbols: [u16; 288],
    distances: [u16; 24],
}

impl Parse {
    fn of(input: &[u8]) -> Self {
        let mut parse =
            Self { steps: Vec::with_capacity(input.len()), symbols: [0; 288], distances: [0; 24] };
        let mut finder = Finder::new(input);
        let mut at = 0;
        let mut pending = None;
        while at < input.len() {
            let (length, distance) = pending.take().unwrap_or_else(|| finder.longest(at));
            finder.insert(at);
            if length < MIN_MATCH {
                parse.literal(input[at]);
                at += 1;
                continue;
            }
            if length < GOOD_MATCH && at + 1 < input.len() {
                let next = finder.longest(at + 1);
                if next.0 > length {
                    parse.literal(input[at]);
                    at += 1;
                    pending = Some(next);
                    continue;
                }
            }
            parse.repeat(length, distance);
            for covered in at + 1..at + length {
                finder.insert(covered);
            }
            at += length;
        }
        parse.symbols[END_OF_BLOCK] = 1;
        parse
    }

    fn literal(&mut self, byte: u8) {
        self.symbols[usize::from(byte)] += 1;
        self.steps.push(Step::Literal(byte));
    }

    #[expect(clippy::cast_possible_truncation, reason = "both are at most MAX_INPUT")]
    fn repeat(&mut self, length: usize, distance: usize) {
        let (length, distance) = (length as u16, distance as u16);
        self.symbols[257 + length_code(length)] += 1;
        self.distances[distance_code(distance)] += 1;
        self.steps.push(Step::Match { length, distance });
    }

    /// Bits that do not depend on the code: the extra bits of lengths and distances.
    fn extra_bits(&self) -> usize {
        let lengths = self.symbols[257..].iter().zip(LENGTH_BITS);
        let lengths = lengths.map(|(&count, bits)| usize::from(count) * usize::from(bits));
        let distances = self.distances.iter().enumerate();
        let distances = distances.map(|(code, &count)| usize::from(count) * distance_bits(code));
        lengths.sum::<usize>() + distances.sum::<usize>()
    }

    fn fixed_bits(&self) -> usize {
        let symbols = self.symbols.iter().enumerate();
        let symbols = symbols.map(|(symbol, &count)| usize::from(count) * fixed_code(symbol).1);
        let matches: usize = self.distances.iter().map(|&count| usize::from(count)).sum();
        3 + symbols.sum::<usize>() + 5 * matches + self.extra_bits()
    }

    /// The least that codes fitted to the frequencies could need, their description included.
    fn fitted_bits(&self) -> usize {
        let (symbols, described) = entropy(&self.symbols);
        let (distances, also_described) = entropy(&self.distances);
        60 + 3 * (described + also_described) + symbols + distances + self.extra_bits()
    }

    fn write(&self, input: &[u8], capacity: usize) -> Vec<u8> {
        let mut out = Bits::new(capacity);
        // Final block, fixed codes.
        out.push(0b011, 3);
        for &step in &self.steps {
            match step {
                Step::Literal(byte) => {
                    let (code, bits) = FIXED[usize::from(byte)];
                    out.push(u64::from(code), u32::from(bits));
                }
                Step::Match { length, distance } => {
                    let code = length_code(length);
                    let (symbol, bits) = FIXED[257 + code];
                    out.push(u64::from(symbol), u32::from(bits));
                    out.push(u64::from(length - LENGTH_BASE[code]), LENGTH_BITS[code].into());
                    let code = distance_code(distance);
                    #[expect(clippy::cast_possible_truncation, reason = "24 codes")]
                    let reversed = (code as u8).reverse_bits() >> 3;
                    out.push(u64::from(reversed), 5);
                    let extra = u64::from(distance - DISTANCE_BASE[code]);
                    #[expect(clippy::cast_possible_truncation, reason = "at most 10")]
                    out.push(extra, distance_bits(code) as u32);
                }
            }
        }
        let (code, bits) = FIXED[END_OF_BLOCK];
        out.push(u64::from(code), u32::from(bits));
        out.finish(adler32(input))
    }
}

/// Where each run of three bytes was seen before, newest first.
struct Finder<'a> {
    input: &'a [u8],
    /// Position plus one of the newest run with this hash; zero for none.
    newest: [u16; 1 << HASH_BITS],
    /// The same for the run before the one at each position.
    older: Vec<u16>,
}

impl<'a> Finder<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { input, newest: [0; 1 << HASH_BITS], older: vec![0; input.len()] }
    }

    #[inline]
    fn hash(&self, at: usize) -> Option<usize> {
        let run = self.input.get(at..at + MIN_MATCH)?;
        let run = u32::from_le_bytes([run[0], run[1], run[2], 0]);
        Some((run.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize)
    }

    #[inline]
    fn insert(&mut self, at: usize) {
        if let Some(hash) = self.hash(at) {
            self.older[at] = self.newest[hash];
            #[expect(clippy::cast_possible_truncation, reason = "at most MAX_INPUT")]
            let position = at as u16 + 1;
            self.newest[hash] = position;
        }
    }

    /// The longest match for `at` among the runs inserted so far, as length and distance.
    #[inline]
    fn longest(&self, at: usize) -> (usize, usize) {
        let Some(hash) = self.hash(at) else { return (0, 0) };
        let mut candidate = self.newest[hash];
        let ahead = &self.input[at..self.input.len().min(at + MAX_MATCH)];
        let (mut length, mut distance) = (MIN_MATCH - 1, 0);
        for _ in 0..MAX_CHAIN {
            let Some(from) = usize::from(candidate).checked_sub(1) else { break };
            let behind = &self.input[from..];
            if behind[length] == ahead[length] {
                let common = ahead.iter().zip(behind).take_while(|(a, b)| a == b).count();
                if common > length {
                    (length, distance) = (common, at - from);
                    if common == ahead.len() {
                        break;
                    }
                }
            }
            candidate = self.older[from];
        }
        if distance == 0 { (0, 0) } else { (length, distance) }
    }
}

/// Least significant bit first, as deflate wants it.
struct Bits {
    out: Vec<u8>,
    pending: u64,
    count: u32,
}

impl Bits {
    fn new(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity + 8);
        // Deflate with a 32 kB window, fastest algorithm, no dictionary.
        out.extend([0x78, 0x01]);
        Self { out, pending: 0, count: 0 }
    }

    #[inline]
    fn push(&mut self, bits: u64, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        if self.count >= 32 {
            #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
            self.out.extend((self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.count -= 32;
        }
    }

    fn finish(mut self, checksum: u32) -> Vec<u8> {
        let rest = self.pending.to_le_bytes();
        self.out.extend(&rest[..self.count.div_ceil(8) as usize]);
        self.out.extend(checksum.to_be_bytes());
        self.out
    }
}

/// Entropy of the counts in bits, rounded down, and how many of them are not zero.
fn entropy(counts: &[u16]) -> (usize, usize) {
    let (mut total, mut used, mut weighted) = (0_u32, 0, 0_u64);
    for &count in counts {
        if count > 0 {
            total += u32::from(count);
            used += 1;
            weighted += u64::from(count) * u64::from(log2(u32::from(count)));
        }
    }
    let bits = (u64::from(total) * u64::from(log2(total.max(1)))).saturating_sub(weighted);
    (usize::try_from(bits >> 8).unwrap_or(usize::MAX), used)
}

/// Logarithm to base two in 1/256, by the line between powers of two; it errs by less than 0.09.
#[inline]
fn log2(number: u32) -> u32 {
    let whole = number.ilog2();
    (whole << 8) + ((number << 8 >> whole) & 0xff)
}

/// The fixed codes with their lengths, bits in the order in which they are written.
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

fn distance_bits(code: usize) -> usize {
    (code / 2).saturating_sub(1)
}

/// The checksum of RFC 1950; inputs are far below the length at which the sums need reducing.
fn adler32(input: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    for &byte in input {
        a += u32::from(byte);
        b += a;
    }
    (b % 65521) << 16 | a % 65521
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
        for distance in 1..=4096 {
            let code = distance_code(distance);
            assert!(distance - DISTANCE_BASE[code] < 1 << distance_bits(code), "{distance}");
        }
    }

    #[test]
    fn another_decoder_reads_what_is_written() {
        let mut state = 1_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut compressed = 0;
        for round in 0..4000 {
            let alphabet = 1 + random(90);
            let length = random(if round % 10 == 0 { 4096 } else { 400 }) as usize;
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
