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
const MAX_CHAIN: usize = 8;
/// Matches from here on are taken at once, without a look at the next position.
const GOOD_MATCH: usize = 32;

const END_OF_BLOCK: usize = 256;
const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
];
const LENGTH_BITS: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 20] =
    [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769];

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
    distances: [u16; 20],
    /// All literals, or-ed.
    any_byte: u8,
    /// Bits of all steps in the fixed codes.
    fixed: usize,
    /// Those among them that no code saves: the extra bits of lengths and distances.
    extra: usize,
}

impl Parse {
    fn of(input: &[u8]) -> Self {
        let mut parse = Self {
            steps: Vec::with_capacity(input.len()),
            symbols: [0; 288],
            distances: [0; 20],
            any_byte: 0,
            fixed: 0,
            extra: 0,
        };
        let mut finder = Finder::new(input);
        let mut at = 0;
        let mut ahead = (at < input.len()).then(|| finder.visit(at));
        while let Some((length, distance)) = ahead {
            if length < MIN_MATCH {
                parse.literal(input[at]);
                at += 1;
                ahead = (at < input.len()).then(|| finder.visit(at));
                continue;
            }
            let mut visited = at + 1;
            if length < GOOD_MATCH && visited < input.len() {
                let next = finder.visit(visited);
                visited += 1;
                if next.0 > length {
                    parse.literal(input[at]);
                    at += 1;
                    ahead = Some(next);
                    continue;
                }
            }
            parse.repeat(length, distance);
            at += length;
            for covered in visited..at {
                finder.insert(covered);
            }
            ahead = (at < input.len()).then(|| finder.visit(at));
        }
        parse.symbols[END_OF_BLOCK] = 1;
        parse
    }

    #[inline]
    fn literal(&mut self, byte: u8) {
        self.symbols[usize::from(byte)] += 1;
        self.any_byte |= byte;
        self.fixed += 8 + usize::from(byte >= 144);
        self.steps.push(Step::Literal(byte));
    }

    #[expect(clippy::cast_possible_truncation, reason = "both are at most MAX_INPUT")]
    fn repeat(&mut self, length: usize, distance: usize) {
        let (length, distance) = (length as u16, distance as u16);
        let (length_code, distance_code) = (length_code(length), distance_code(distance));
        self.symbols[257 + length_code] += 1;
        self.distances[distance_code] += 1;
        let extra = usize::from(LENGTH_BITS[length_code]) + distance_bits(distance_code);
        self.extra += extra;
        self.fixed += usize::from(FIXED[257 + length_code].1) + 5 + extra;
        self.steps.push(Step::Match { length, distance });
    }

    /// The block in fixed codes: its head, the steps, the end.
    fn fixed_bits(&self) -> usize {
        3 + self.fixed + 7
    }

    /// The least that codes fitted to the frequencies could need, their description included.
    fn fitted_bits(&self) -> usize {
        // JSON is ASCII, and then the literals beyond it need no look.
        let literals = if self.any_byte < 128 { 0..128 } else { 0..END_OF_BLOCK };
        let symbols = Entropy::default()
            .add(&self.symbols[literals])
            .add(&self.symbols[END_OF_BLOCK..END_OF_BLOCK + 30]);
        let distances = Entropy::default().add(&self.distances);
        let described = symbols.used + distances.used;
        60 + 3 * described + symbols.bits() + distances.bits() + self.extra
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
                    #[expect(clippy::cast_possible_truncation, reason = "20 codes")]
                    let reversed = (code as u8).reverse_bits() >> 3;
                    out.push(u64::from(reversed), 5);
                    let extra = u64::from(distance - DISTANCE_BASE[code]);
                    #[expect(clippy::cast_possible_truncation, reason = "at most 8")]
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

    /// Notes the run at this position and returns the newest one like it, plus one.
    #[inline]
    fn insert(&mut self, at: usize) -> u16 {
        let Some(&[a, b, c]) = self.input[at..].first_chunk() else { return 0 };
        let run = u32::from_le_bytes([a, b, c, 0]);
        let hash = (run.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize;
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_INPUT")]
        let newest = std::mem::replace(&mut self.newest[hash], at as u16 + 1);
        self.older[at] = newest;
        newest
    }

    /// Notes the run at this position and returns the longest match for it, as length and distance.
    #[inline]
    fn visit(&mut self, at: usize) -> (usize, usize) {
        let mut candidate = self.insert(at);
        if candidate == 0 {
            return (0, 0);
        }
        let ahead = &self.input[at..self.input.len().min(at + MAX_MATCH)];
        let (mut length, mut distance) = (MIN_MATCH - 1, 0);
        for _ in 0..MAX_CHAIN {
            let Some(from) = usize::from(candidate).checked_sub(1) else { break };
            let behind = &self.input[from..];
            if behind[length] == ahead[length] {
                let common = common_prefix(ahead, behind);
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

/// The entropy of counted symbols.
#[derive(Default)]
struct Entropy {
    total: u32,
    /// Symbols that occur.
    used: usize,
    /// Sum of count times its logarithm, in 1/256.
    weighted: u32,
}

impl Entropy {
    #[inline]
    fn add(mut self, counts: &[u16]) -> Self {
        for &count in counts {
            let count = u32::from(count);
            // Without a branch: which symbols occur is beyond any prediction.
            self.total += count;
            self.used += usize::from(count > 0);
            self.weighted += count * log2(count | u32::from(count == 0));
        }
        self
    }

    /// The bits that the best code for these frequencies would take, give or take a few.
    fn bits(&self) -> usize {
        let total = self.total.max(1);
        ((total * log2(total)).saturating_sub(self.weighted) >> 8) as usize
    }
}

/// Logarithm to base two in 1/256, by the line between powers of two; it errs by less than 0.09.
#[inline]
fn log2(number: u32) -> u32 {
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
