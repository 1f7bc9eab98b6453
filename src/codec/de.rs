//! Session values into Rust types, through serde.
//!
//! `serde_json` is not used for this: it refuses `NaN` and rounds large integers unless a feature is on
//! that would change every other crate of the program. Here a number that the type cannot hold is an
//! error, never another number.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::json::{JsonError, Literal, Number, Scanner, Token};
use super::value::ValueError;

/// Levels that are followed into a type: serde recurses, and threads have small stacks.
const MAX_DEPTH_TYPED: usize = 256;

/// Reads one value of checked JSON text.
pub(crate) fn from_json<T: DeserializeOwned>(json: &str) -> Result<T, ValueError> {
    let mut reader = Reader { scanner: Scanner::new(json), depth: 0 };
    let value = T::deserialize(&mut reader)?;
    reader.scanner.end()?;
    Ok(value)
}

impl de::Error for ValueError {
    // What was found is somebody's data: only its kind is told. A type's own message may repeat it.
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self("the type refuses the value".to_owned())
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        Self(format!("expected {expected}, found {length} items"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("missing field {field}"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self(format!("duplicate field {field}"))
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("expected {expected}, found {}", kind(unexpected)))
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("expected {expected}, found another {}", kind(unexpected)))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("unknown variant, expected one of {expected:?}"))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("unknown field, expected one of {expected:?}"))
    }
}

fn kind(unexpected: de::Unexpected<'_>) -> &'static str {
    match unexpected {
        de::Unexpected::Bool(_) => "boolean",
        de::Unexpected::Unsigned(_) | de::Unexpected::Signed(_) => "integer",
        de::Unexpected::Float(_) => "float",
        de::Unexpected::Str(_) | de::Unexpected::Char(_) => "string",
        de::Unexpected::Unit | de::Unexpected::Option => "null",
        de::Unexpected::Seq => "list",
        de::Unexpected::Map => "object",
        _ => "value",
    }
}

impl From<JsonError> for ValueError {
    fn from(error: JsonError) -> Self {
        error.kind().into()
    }
}

struct Reader<'de> {
    scanner: Scanner<'de>,
    depth: usize,
}

impl<'de> Reader<'de> {
    fn nested<T>(
        &mut self,
        close: u8,
        read: impl FnOnce(&mut Self) -> Result<T, ValueError>,
    ) -> Result<T, ValueError> {
        if self.depth == MAX_DEPTH_TYPED {
            return Err(ValueError(
                "the value nests too deep for a type; read its text".to_owned(),
            ));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        self.scanner.expect(close)?;
        Ok(value)
    }

    fn visit_string<V: Visitor<'de>>(
        literal: Literal<'de>,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match text(literal)? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }
}

fn text(literal: Literal<'_>) -> Result<Cow<'_, str>, ValueError> {
    literal.to_str().ok_or_else(|| ValueError("text with a lone surrogate".to_owned()))
}

fn visit_number<'de, V: Visitor<'de>>(
    number: Number<'_>,
    visitor: V,
) -> Result<V::Value, ValueError> {
    let Number::Integer(text) = number else { return visitor.visit_f64(number.to_f64()) };
    if let Ok(number) = text.parse::<u64>() {
        visitor.visit_u64(number)
    } else if let Ok(number) = text.parse::<i64>() {
        visitor.visit_i64(number)
    } else if let Ok(number) = text.parse::<u128>() {
        visitor.visit_u128(number)
    } else if let Ok(number) = text.parse::<i128>() {
        visitor.visit_i128(number)
    } else {
        Err(ValueError("integer beyond 128 bits".to_owned()))
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.scanner.token()? {
            Token::Null => visitor.visit_unit(),
            Token::True => visitor.visit_bool(true),
            Token::False => visitor.visit_bool(false),
            Token::Number => visit_number(self.scanner.number()?, visitor),
            Token::String => Reader::visit_string(self.scanner.string()?, visitor),
            Token::List => {
                self.nested(b']', |reader| visitor.visit_seq(Items { reader, first: true }))
            }
            Token::Object => {
                self.nested(b'}', |reader| visitor.visit_map(Items { reader, first: true }))
            }
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.scanner.peek() {
            Some(b'0'..=b'9' | b'-' | b'N' | b'I') => {
                visitor.visit_f64(self.scanner.number()?.to_f64())
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.scanner.peek() == Some(b'n') {
            self.scanner.token()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.scanner.token()? {
            Token::String => {
                visitor.visit_enum(text(self.scanner.string()?)?.into_owned().into_deserializer())
            }
            Token::Object => self.nested(b'}', |reader| visitor.visit_enum(Variant { reader })),
            _ => Err(ValueError("expected an enum: a string or an object".to_owned())),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.scanner.raw_value()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier
    }
}

/// What is inside a list or an object.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    first: bool,
}

impl Items<'_, '_> {
    /// Whether another one follows; the comma before it is read.
    fn more(&mut self, close: u8) -> Result<bool, ValueError> {
        if self.reader.scanner.peek() == Some(close) {
            return Ok(false);
        }
        if !std::mem::replace(&mut self.first, false) {
            self.reader.scanner.expect(b',')?;
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        if self.more(b']')? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ValueError> {
        if !self.more(b'}')? {
            return Ok(None);
        }
        let name = self.reader.scanner.member_name()?;
        seed.deserialize(MemberName(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ValueError> {
        seed.deserialize(&mut *self.reader)
    }
}

/// The name of a member, which is text but may stand for a number or a boolean, as Python writes them.
struct MemberName<'de>(Literal<'de>);

macro_rules! number_from_name {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            let mut scanner = Scanner::new(self.0.body);
            let number = scanner.number()?;
            scanner.end()?;
            visit_number(number, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for MemberName<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        Reader::visit_string(self.0, visitor)
    }

    number_from_name! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0.body {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(ValueError("expected a boolean as name".to_owned())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_enum(text(self.0)?.into_owned().into_deserializer())
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// An enum variant with content: an object of one member.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = ValueError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), ValueError> {
        let name = self.reader.scanner.member_name()?;
        Ok((seed.deserialize(MemberName(name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        de::Deserialize::deserialize(self.reader)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, ValueError> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.reader.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.reader.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    enum Shape {
        Point,
        Circle(f64),
        Box { width: u8, height: u8 },
        Line(i8, i8),
    }

    #[test]
    fn serde_s_shapes_are_read() {
        assert_eq!(from_json("\"Point\""), Ok(Shape::Point));
        assert_eq!(from_json("{\"Circle\": 2}"), Ok(Shape::Circle(2.0)));
        assert_eq!(
            from_json("{\"Box\":{\"width\":1,\"height\":2}}"),
            Ok(Shape::Box { width: 1, height: 2 })
        );
        assert_eq!(from_json("{\"Line\":[-1,1]}"), Ok(Shape::Line(-1, 1)));
        assert_eq!(from_json("[null, 1]"), Ok(vec![None, Some(1)]));
        assert_eq!(
            from_json("{\"1\": true, \"-2\": false}"),
            Ok(BTreeMap::from([(1, true), (-2, false)]))
        );
        assert_eq!(from_json(" \"\\u00e9\\ud83d\\ude00\" "), Ok("é😀".to_owned()));
    }

    #[test]
    fn a_number_is_exact_or_an_error() {
        assert_eq!(from_json("340282366920938463463374607431768211455"), Ok(u128::MAX));
        assert_eq!(from_json("-170141183460469231731687303715884105728"), Ok(i128::MIN));
        assert!(from_json::<u128>("340282366920938463463374607431768211456").is_err());
        assert!(from_json::<u8>("256").is_err());
        assert!(from_json::<i64>("1.0").is_err());
        assert_eq!(from_json("9007199254740993"), Ok(9_007_199_254_740_992.0_f64));
        assert_eq!(from_json("-Infinity"), Ok(f64::NEG_INFINITY));
        assert_eq!(from_json("1e400"), Ok(f64::INFINITY));
        assert!(from_json::<f64>("NaN").is_ok_and(f64::is_nan));
        assert!(from_json::<serde_json::Value>("123456789012345678901234567890").is_err());
    }

    /// A type whose own error repeats what it was given.
    struct Talkative;

    impl<'de> Deserialize<'de> for Talkative {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            Err(serde::de::Error::custom(format!("{text} is wrong")))
        }
    }

    #[test]
    fn errors_name_shapes_and_no_values() {
        for error in [
            from_json::<u8>("\"hunter2\"").unwrap_err(),
            from_json::<bool>("\"hunter2\"").unwrap_err(),
            from_json::<Shape>("\"hunter2\"").unwrap_err(),
            from_json::<Shape>("{\"hunter2\":1}").unwrap_err(),
            from_json::<char>("\"hunter2\"").unwrap_err(),
            from_json::<std::net::Ipv4Addr>("\"hunter2\"").unwrap_err(),
            from_json::<Talkative>("\"hunter2\"").map(drop).unwrap_err(),
        ] {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(from_json::<String>("\"\\ud800\"").is_err());
        let short = from_json::<(u8, u8)>("[1]").unwrap_err().to_string();
        assert!(short.contains("found 1 items"), "{short}");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(from_json::<serde_json::Value>(&nested(256)).is_ok());
        assert!(from_json::<serde_json::Value>(&nested(257)).is_err());
        assert!(from_json::<serde::de::IgnoredAny>(&nested(5000)).is_ok());
    }
}
