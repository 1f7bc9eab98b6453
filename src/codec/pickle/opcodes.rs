//! Plain values as opcodes, each in the shortest form that its protocol has.

/// Items put into a container by one opcode, as Python does it, so that its reader needs no large stack.
pub(super) const BATCH: usize = 1000;

/// As many as [`Limits`](super::Limits) allows at first.
pub(super) const MAX_MARKS: usize = 10_000;

/// A pickle that is being written.
pub(super) struct Opcodes {
    pub(super) out: Vec<u8>,
    pub(super) protocol: u8,
    /// How many objects are remembered.
    remembered: u32,
}

impl Opcodes {
    pub(super) fn new(protocol: u8, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        out.extend([0x80, protocol]);
        Self { out, protocol, remembered: 0 }
    }

    #[inline]
    pub(super) fn push(&mut self, opcode: u8) {
        self.out.push(opcode);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.out.push(if value { 0x88 } else { 0x89 });
    }

    pub(super) fn float(&mut self, number: f64) {
        self.out.push(b'G');
        self.out.extend(number.to_be_bytes());
    }

    pub(super) fn int(&mut self, number: i64) {
        if let Ok(number) = u8::try_from(number) {
            self.out.extend([b'K', number]);
        } else if let Ok(number) = u16::try_from(number) {
            self.out.push(b'M');
            self.out.extend(number.to_le_bytes());
        } else if let Ok(number) = i32::try_from(number) {
            self.out.push(b'J');
            self.out.extend(number.to_le_bytes());
        } else if self.protocol <= 2 {
            // Anything shorter would be a `long` for Python 2.
            self.out.push(b'I');
            self.out.extend(number.to_string().as_bytes());
            self.out.push(b'\n');
        } else {
            let bytes = number.to_le_bytes();
            let sign = if number < 0 { 0xff } else { 0 };
            let mut length = bytes.len();
            while length > 1 && bytes[length - 1] == sign && (bytes[length - 2] ^ sign) & 0x80 == 0
            {
                length -= 1;
            }
            self.long(&bytes[..length]);
        }
    }

    /// An integer of any size, in two's complement from the lowest byte on.
    pub(super) fn long(&mut self, bytes: &[u8]) {
        if let Ok(length) = u8::try_from(bytes.len()) {
            self.out.extend([0x8a, length]);
        } else {
            self.out.push(0x8b);
            self.length32(bytes.len());
        }
        self.out.extend_from_slice(bytes);
    }

    /// Text in UTF-8 that may hold lone surrogates.
    #[inline]
    pub(super) fn text(&mut self, bytes: &[u8]) {
        // `SHORT_BINUNICODE` came with protocol 4.
        let short = if self.protocol >= 4 { 0x8c } else { 0 };
        self.counted(bytes, short, b'X');
    }

    /// Bytes behind their length, by the opcode for the width that it takes.
    #[inline]
    pub(super) fn counted(&mut self, bytes: &[u8], short: u8, normal: u8) {
        match u8::try_from(bytes.len()) {
            Ok(length) if short != 0 => self.out.extend([short, length]),
            _ => {
                self.out.push(normal);
                self.length32(bytes.len());
            }
        }
        self.out.extend_from_slice(bytes);
    }

    #[expect(clippy::cast_possible_truncation, reason = "texts are shorter than 2^31 bytes")]
    fn length32(&mut self, length: usize) {
        self.out.extend((length as u32).to_le_bytes());
    }

    /// Remembers the object on top of the stack, and says under which number.
    pub(super) fn remember(&mut self) -> u32 {
        let number = self.remembered;
        self.remembered += 1;
        match u8::try_from(number) {
            _ if self.protocol >= 4 => self.out.push(0x94),
            Ok(number) => self.out.extend([b'q', number]),
            Err(_) => {
                self.out.push(b'r');
                self.out.extend(number.to_le_bytes());
            }
        }
        number
    }

    /// Fetches an object that is remembered.
    pub(super) fn fetch(&mut self, number: u32) {
        if let Ok(number) = u8::try_from(number) {
            self.out.extend([b'h', number]);
        } else {
            self.out.push(b'j');
            self.out.extend(number.to_le_bytes());
        }
    }
}
