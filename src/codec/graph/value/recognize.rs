//! The classes that sessions hold, by the names and arguments with which they are pickled.

use std::borrow::Cow;

use super::{Dict, Global, Items, Kind, Object, Text, Value, as_append, as_pair};
use crate::codec::graph::temporal::{Date, DateTime, Time, TimeDelta, TimeZone};
use crate::codec::graph::{Maker, Node, NodeId, Step};

/// More bytes than a datetime has, and more attributes than a time zone.
const FIELDS: usize = 16;

impl<'a> Object<'a> {
    /// The types that are known by name. Whatever does not fit to the last detail is left an object.
    pub(super) fn recognize(self) -> Option<Kind<'a>> {
        let mut args = match self.graph.node(self.args().id) {
            Node::Tuple(ids) => &**ids,
            _ => return None,
        };
        let mut class = self.callable();
        // Up to protocol 1, `object.__reduce_ex__` goes through a function that takes the class.
        if matches!(self.by, Maker::Call { .. })
            && class.as_global().is_some_and(|global| global.is("copyreg", "_reconstructor"))
        {
            let &[of, base, state] = args else { return None };
            let base = self.graph.value(base).as_global()?;
            args = if base.is("builtins", "object") { &[] } else { std::slice::from_ref(&args[2]) };
            if args.is_empty() && state != NodeId::NONE {
                return None;
            }
            class = self.graph.value(of);
        }
        let args: Vec<Value<'a>> = args.iter().take(4).map(|&id| self.graph.value(id)).collect();
        match self.by {
            Maker::NewEx { .. } => return None,
            // Collections take their contents in `__init__`, which is not called.
            Maker::New { .. } if !args.is_empty() && class.as_global().is_some_and(is_filled) => {
                return None;
            }
            _ => {}
        }
        let Some(global) = class.as_global() else { return self.recognize_zone(class, &args) };
        match global.module {
            b"datetime" => self.unchanged().and_then(|_| recognize_datetime(global, &args)),
            b"builtins" | b"__builtin__" | b"_codecs" => {
                self.unchanged()?.recognize_builtin(global, &args)
            }
            b"collections" => self.recognize_collection(global, &args),
            b"decimal" if global.name == b"Decimal" => {
                let [text] = &args[..] else { return None };
                self.unchanged()?;
                text.as_text().map(Kind::Decimal)
            }
            b"uuid" if global.name == b"UUID" && args.is_empty() => self.recognize_uuid(),
            b"django.utils.safestring" => {
                let (b"SafeString" | b"SafeText" | b"SafeUnicode") = global.name else {
                    return None;
                };
                let [text] = &args[..] else { return None };
                self.without_attributes()?;
                match self.graph.node(text.id) {
                    Node::Str(span) => Some(Kind::SafeString(Text(self.graph.bytes_of(*span)))),
                    _ => None,
                }
            }
            _ => self.recognize_time_zone(global, &args).map(Kind::TimeZone),
        }
    }

    fn unchanged(self) -> Option<Self> {
        self.steps.is_empty().then_some(self)
    }

    /// No change but an empty state, which Python 2 writes for classes without attributes of their own.
    fn without_attributes(self) -> Option<Self> {
        match self.steps {
            [] => Some(self),
            [Step::SetState(state)] => match self.graph.node(*state) {
                Node::Dict(pairs) if pairs.is_empty() => Some(self),
                _ => None,
            },
            _ => None,
        }
    }

    fn recognize_builtin(self, global: Global<'a>, args: &[Value<'a>]) -> Option<Kind<'a>> {
        if global.is("_codecs", "encode") {
            let [text, encoding] = args else { return None };
            return match encoding.as_text() {
                Some("latin1" | "latin-1") => latin1(text).map(|bytes| Kind::Bytes(bytes.into())),
                _ => None,
            };
        }
        let python2 = global.module == b"__builtin__" && self.graph.protocol() < 3;
        match (global.name, args) {
            // Python 3 has no opcode for bytes in protocol 2; in Python 2 this is text.
            (b"bytes", []) if python2 => Some(Kind::Bytes(Cow::Borrowed(b""))),
            (b"bytearray", []) => Some(Kind::ByteArray(Cow::Borrowed(b""))),
            (b"bytearray", [bytes]) => bytes.as_bytes().map(Kind::ByteArray),
            (b"bytearray", [text, encoding]) => match encoding.as_text() {
                Some("latin1" | "latin-1") => {
                    latin1(text).map(|bytes| Kind::ByteArray(bytes.into()))
                }
                _ => None,
            },
            (b"complex", [real, imaginary]) => {
                Some(Kind::Complex(real.as_float()?, imaginary.as_float()?))
            }
            (b"set", [items]) => items.as_list().map(Kind::Set),
            (b"frozenset", [items]) => items.as_list().map(Kind::FrozenSet),
            (b"range" | b"xrange", [start, end, step]) => {
                Some(Kind::Range([start.as_integer()?, end.as_integer()?, step.as_integer()?]))
            }
            _ => None,
        }
    }

    fn recognize_collection(self, global: Global<'a>, args: &[Value<'a>]) -> Option<Kind<'a>> {
        let graph = self.graph;
        let assigned = || self.steps.iter().map(as_pair).collect::<Option<Vec<_>>>();
        let dict = |pairs| Dict { graph, pairs: Cow::Owned(pairs) };
        match (global.name, args) {
            (b"OrderedDict", []) => assigned().map(|pairs| Kind::OrderedDict(dict(pairs))),
            // Python 2 gives a list of lists of two.
            (b"OrderedDict", [items]) => {
                let pair = |item: Value<'a>| match *item.as_list()?.ids {
                    [key, value] => Some((key, value)),
                    _ => None,
                };
                let mut pairs = items.as_list()?.iter().map(pair).collect::<Option<Vec<_>>>()?;
                pairs.extend(assigned()?);
                Some(Kind::OrderedDict(dict(pairs)))
            }
            (b"defaultdict", []) => {
                Some(Kind::DefaultDict(dict(assigned()?), graph.value(NodeId::NONE)))
            }
            (b"defaultdict", [factory]) => Some(Kind::DefaultDict(dict(assigned()?), *factory)),
            (b"Counter", [counts]) => {
                self.unchanged()?;
                let Node::Dict(pairs) = graph.node(counts.id) else { return None };
                Some(Kind::Counter(Dict { graph, pairs: Cow::Borrowed(pairs) }))
            }
            (b"deque", [] | [_] | [_, _]) => {
                // Python 2 gives a list, Python 3 an empty tuple and appends.
                let mut ids = match args.first().map(|first| graph.node(first.id)) {
                    None => Vec::new(),
                    Some(Node::List(ids) | Node::Tuple(ids)) => ids.clone(),
                    Some(_) => return None,
                };
                let appended = self.steps.iter().map(as_append).collect::<Option<Vec<_>>>()?;
                ids.extend(appended);
                let maxlen = match args.get(1) {
                    None => None,
                    Some(maxlen) if maxlen.id == NodeId::NONE => None,
                    Some(maxlen) => Some(maxlen.as_integer()?),
                };
                Some(Kind::Deque(Items { graph, ids: Cow::Owned(ids) }, maxlen))
            }
            _ => None,
        }
    }

    fn recognize_uuid(self) -> Option<Kind<'a>> {
        let [Step::SetState(state)] = *self.steps else { return None };
        let Node::Dict(pairs) = self.graph.node(state) else { return None };
        let [(name, number)] = pairs[..] else { return None };
        if self.graph.value(name).as_text() != Some("int") {
            return None;
        }
        self.graph.value(number).as_integer()?.to_u128().map(Kind::Uuid)
    }

    fn recognize_time_zone(self, global: Global<'a>, args: &[Value<'a>]) -> Option<TimeZone<'a>> {
        let utc = TimeDelta::from_seconds(0).map(TimeZone::Offset);
        match (global.module, global.name, args) {
            (b"pytz", b"_UTC", []) => utc.filter(|_| self.steps.is_empty()),
            // Zone, seconds from UTC, seconds of daylight saving time, abbreviation.
            (b"pytz", b"_p", [_, offset, ..]) => {
                let seconds = offset.as_integer()?.to_i64()?;
                self.unchanged()?;
                TimeDelta::from_seconds(seconds).map(TimeZone::Offset)
            }
            (b"django.utils.timezone", b"UTC", []) => {
                self.without_attributes()?;
                utc
            }
            (b"django.utils.timezone", b"FixedOffset", []) => {
                let state = self.state()?;
                let Node::Dict(pairs) = self.graph.node(state.id) else { return None };
                if pairs.len() > FIELDS {
                    return None;
                }
                let state = Dict { graph: self.graph, pairs: Cow::Borrowed(pairs) };
                state.get("_FixedOffset__offset")?.as_time_delta().map(TimeZone::Offset)
            }
            (b"zoneinfo", b"ZoneInfo._unpickle", [key, _]) => {
                self.unchanged()?;
                key.as_text().map(TimeZone::Named)
            }
            _ => None,
        }
    }

    /// `ZoneInfo._unpickle(key, flag)`, the method fetched by `getattr`.
    fn recognize_zone(self, callable: Value<'a>, args: &[Value<'a>]) -> Option<Kind<'a>> {
        let Node::Made(made) = self.graph.node(callable.id) else { return None };
        let Maker::Call { callable: getattr, args: of } = made.by else { return None };
        let getattr = self.graph.value(getattr).as_global()?;
        let Node::Tuple(of) = self.graph.node(of) else { return None };
        let &[class, method] = &of[..] else { return None };
        let class = self.graph.value(class).as_global()?;
        let known = getattr.is("builtins", "getattr")
            && class.is("zoneinfo", "ZoneInfo")
            && self.graph.value(method).as_text() == Some("_unpickle")
            && made.steps.is_empty()
            && self.steps.is_empty();
        match args {
            [key, _] if known => key.as_text().map(|key| Kind::TimeZone(TimeZone::Named(key))),
            _ => None,
        }
    }
}

/// Whether it is a class whose `__init__` takes what its objects hold.
fn is_filled(class: Global<'_>) -> bool {
    matches!(
        (class.module, class.name),
        (b"collections", _) | (b"builtins" | b"__builtin__", b"set" | b"bytearray")
    )
}

fn recognize_datetime<'a>(global: Global<'a>, args: &[Value<'a>]) -> Option<Kind<'a>> {
    let zone = |zone: &Value<'a>| (zone.id != NodeId::NONE).then(|| zone.as_time_zone());
    match (global.name, args) {
        (b"datetime", [fields, rest @ ..]) if rest.len() <= 1 => {
            let zone = rest.first().and_then(zone);
            DateTime::from_bytes(&as_fields(fields)?, zone).map(Kind::DateTime)
        }
        (b"date", [fields]) => Date::from_bytes(&as_fields(fields)?).map(Kind::Date),
        (b"time", [fields, rest @ ..]) if rest.len() <= 1 => {
            let zone = rest.first().and_then(zone);
            Time::from_bytes(&as_fields(fields)?, zone).map(Kind::Time)
        }
        (b"timedelta", [days, seconds, microseconds]) => {
            let part = |value: &Value<'a>| value.as_integer()?.to_i64();
            TimeDelta::new(part(days)?, part(seconds)?, part(microseconds)?).map(Kind::TimeDelta)
        }
        (b"timezone", [offset] | [offset, _]) => {
            let offset = offset.as_time_delta()?;
            let below_a_day = offset.total_microseconds().abs() < 86_400_000_000;
            below_a_day.then_some(Kind::TimeZone(TimeZone::Offset(offset)))
        }
        _ => None,
    }
}

/// The bytes in which dates and times are pickled. A longer text, which many dates may share, is not
/// looked at.
fn as_fields<'a>(fields: &Value<'a>) -> Option<Cow<'a, [u8]>> {
    if let Node::Made(made) = fields.graph.node(fields.id) {
        let (Maker::Call { args, .. } | Maker::New { args, .. }) = made.by else { return None };
        let Node::Tuple(args) = fields.graph.node(args) else { return None };
        let Node::Str(text) = fields.graph.node(*args.first()?) else { return None };
        if fields.graph.bytes_of(*text).len() > FIELDS * 2 {
            return None;
        }
    }
    fields.as_bytes()
}

/// The bytes that a text stands for, one to a character.
fn latin1(text: &Value<'_>) -> Option<Vec<u8>> {
    let Node::Str(span) = text.graph.node(text.id) else { return None };
    let text = std::str::from_utf8(text.graph.bytes_of(*span)).ok()?;
    text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect()
}
