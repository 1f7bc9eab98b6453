//! Rust types into session values, through serde.
//!
//! The text is what Python's `json.dumps` would write for the same value: escaped to ASCII, floats as
//! `repr` shows them, `NaN` kept. Enums take serde's usual form, a string or an object of one member.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use super::error::EncodeError;
use super::json::{self, MAX_DEPTH_WRITTEN};

/// Writes one value as JSON text.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, EncodeError> {
    let mut out = String::new();
    // The object that a session is takes one level.
    value.serialize(Writer { out: &mut out, depth: 1 })?;
    Ok(out)
}

impl ser::Error for EncodeError {
    // A type's own message may repeat the value.
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Serialize
    }
}

#[derive(Debug)]
struct Writer<'a> {
    out: &'a mut String,
    depth: usize,
}

macro_rules! integers {
    ($($method:ident $type:ty),*) => {$(
        fn $method(self, number: $type) -> Result<(), EncodeError> {
            self.out.push_str(itoa::Buffer::new().format(number));
            Ok(())
        }
    )*};
}

impl<'a> Writer<'a> {
    /// Opens a list or an object, which `close` ends.
    fn open(self, open: &str, close: &'static str) -> Result<Container<'a>, EncodeError> {
        if self.depth == MAX_DEPTH_WRITTEN {
            return Err(EncodeError::TooDeep { limit: MAX_DEPTH_WRITTEN });
        }
        self.out.push_str(open);
        Ok(Container { out: self.out, depth: self.depth + 1, first: true, close })
    }

    /// Opens `{"variant":` and what it holds.
    fn variant(
        self,
        variant: &str,
        open: &str,
        close: &'static str,
    ) -> Result<Container<'a>, EncodeError> {
        self.out.push('{');
        json::push_string(self.out, variant);
        self.out.push(':');
        Writer { out: self.out, depth: self.depth + 1 }.open(open, close)
    }
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Container<'a>;
    type SerializeTuple = Container<'a>;
    type SerializeTupleStruct = Container<'a>;
    type SerializeTupleVariant = Container<'a>;
    type SerializeMap = Container<'a>;
    type SerializeStruct = Container<'a>;
    type SerializeStructVariant = Container<'a>;

    integers! {
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_i128 i128, serialize_u8 u8, serialize_u16 u16, serialize_u32 u32,
        serialize_u64 u64, serialize_u128 u128
    }

    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        self.out.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_f32(self, number: f32) -> Result<(), EncodeError> {
        json::push_f32(self.out, number);
        Ok(())
    }

    fn serialize_f64(self, number: f64) -> Result<(), EncodeError> {
        json::push_f64(self.out, number);
        Ok(())
    }

    fn serialize_char(self, char: char) -> Result<(), EncodeError> {
        self.serialize_str(char.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), EncodeError> {
        json::push_string(self.out, text);
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), EncodeError> {
        Err(EncodeError::Unrepresentable { kind: "a byte string" })
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.out.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let mut object = self.open("{", "}")?;
        object.member(variant, value)?;
        object.close();
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Container<'a>, EncodeError> {
        self.open("[", "]")
    }

    fn serialize_tuple(self, _: usize) -> Result<Container<'a>, EncodeError> {
        self.open("[", "]")
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Container<'a>, EncodeError> {
        self.open("[", "]")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Container<'a>, EncodeError> {
        self.variant(variant, "[", "]}")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Container<'a>, EncodeError> {
        self.open("{", "}")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Container<'a>, EncodeError> {
        self.open("{", "}")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Container<'a>, EncodeError> {
        self.variant(variant, "{", "}}")
    }
}

/// A list or an object that has been opened.
#[derive(Debug)]
struct Container<'a> {
    out: &'a mut String,
    depth: usize,
    first: bool,
    close: &'static str,
}

impl Container<'_> {
    fn comma(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(',');
        }
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.comma();
        value.serialize(Writer { out: self.out, depth: self.depth })
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), EncodeError> {
        self.comma();
        json::push_string(self.out, name);
        self.out.push(':');
        value.serialize(Writer { out: self.out, depth: self.depth })
    }

    fn close(self) {
        self.out.push_str(self.close);
    }
}

macro_rules! list {
    ($($trait:ident $method:ident),*) => {$(
        impl ser::$trait for Container<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.item(value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.close();
                Ok(())
            }
        }
    )*};
}

list! {
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field
}

macro_rules! object {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Container<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), EncodeError> {
                self.member(name, value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.close();
                Ok(())
            }
        }
    )*};
}

object! { SerializeStruct, SerializeStructVariant }

impl ser::SerializeMap for Container<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), EncodeError> {
        self.comma();
        // Python turns numbers, booleans and None into text here; so do we, by quoting what they
        // look like as values. Anything but a scalar has no name.
        let mut text = String::new();
        name.serialize(Writer { out: &mut text, depth: self.depth })?;
        match text.as_bytes().first() {
            Some(b'"') => self.out.push_str(&text),
            Some(b'[' | b'{') | None => {
                return Err(EncodeError::Unrepresentable { kind: "a name that is not a scalar" });
            }
            Some(_) => {
                self.out.push('"');
                self.out.push_str(&text);
                self.out.push('"');
            }
        }
        self.out.push(':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Writer { out: self.out, depth: self.depth })
    }

    fn end(self) -> Result<(), EncodeError> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::to_json;
    use crate::codec::EncodeError;

    #[derive(Serialize)]
    enum Shape {
        Point,
        Circle(f64),
        Box { width: u8 },
        Line(i8, i8),
    }

    #[derive(Serialize)]
    struct Nested(Vec<Nested>);

    #[test]
    fn the_text_is_python_s() {
        let shapes =
            [Shape::Point, Shape::Circle(1e16), Shape::Box { width: 1 }, Shape::Line(-1, 1)];
        assert_eq!(
            to_json(&shapes).unwrap(),
            r#"["Point",{"Circle":1e+16},{"Box":{"width":1}},{"Line":[-1,1]}]"#
        );
        assert_eq!(to_json("é\u{7f}/\"\n😀").unwrap(), r#""\u00e9\u007f/\"\n\ud83d\ude00""#);
        assert_eq!(to_json(&(f64::NAN, 0.1_f32, (), None::<u8>)).unwrap(), "[NaN,0.1,null,null]");
        assert_eq!(to_json(&BTreeMap::from([(1, 2)])).unwrap(), r#"{"1":2}"#);
        assert_eq!(to_json(&u128::MAX).unwrap(), "340282366920938463463374607431768211455");
    }

    #[test]
    fn what_django_could_not_read_is_refused() {
        let nested = |levels| (0..levels).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]));
        assert!(to_json(&nested(898)).is_ok());
        assert!(matches!(to_json(&nested(899)), Err(EncodeError::TooDeep { limit: 900 })));
        assert!(matches!(
            to_json(&BTreeMap::from([(vec![1], 2)])),
            Err(EncodeError::Unrepresentable { .. })
        ));
    }
}
