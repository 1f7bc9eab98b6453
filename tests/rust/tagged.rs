//! Objects of pickles against the tagged form of the vectors (`tests/fixtures/README.md`).
//!
//! Whatever is recognized has to be equal to the last bit, in the order of the pickle, with the same
//! objects shared. An instance of another class is what Python made of it: here it is compared with what
//! the pickle says about it, and counted as opaque.

use std::collections::HashMap;

use django_session::codec::graph::{Dict, Global, Integer, Items, Kind, Object, TimeZone, Value};
use serde_json::Value as Json;

use crate::vectors::{hex, text};

/// Who says what the objects are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum View {
    /// The Python 2 that wrote the pickle. Dicts have an order of their own there.
    Python2,
    /// Python 3, for which a `str` of Python 2 in ASCII is text.
    Python3,
}

type Result<T = ()> = std::result::Result<T, String>;

/// One object against one tagged value.
#[derive(Clone)]
pub(crate) struct Comparison<'a> {
    view: View,
    /// What contains the object at hand, from the outside in: path and object.
    inside: Vec<(String, Value<'a>)>,
    met: HashMap<String, Value<'a>>,
    opaque: usize,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(view: View) -> Self {
        Self { view, inside: Vec::new(), met: HashMap::new(), opaque: 0 }
    }

    /// How many objects were of classes that are not recognized.
    pub(crate) fn opaque(&self) -> usize {
        self.opaque
    }

    /// Compares the root.
    pub(crate) fn root(&mut self, value: Value<'a>, expected: &Json) -> Result {
        self.check("$", value, expected)
    }

    /// Whether what was met at these paths is one object.
    pub(crate) fn is_one(&self, paths: &Json) -> bool {
        let values = paths.as_array().unwrap().iter();
        let values: Vec<_> = values.map(|path| self.met[path.as_str().unwrap()]).collect();
        values.windows(2).all(|pair| pair[0].is(pair[1]))
    }

    fn check(&mut self, path: &str, value: Value<'a>, expected: &Json) -> Result {
        if expected["__type__"] == "ref" {
            let to = text(expected, "path");
            let found = self.inside.iter().find(|(path, _)| path == to);
            let same = found.is_some_and(|(_, container)| container.is(value));
            return expect(same, path, "another object");
        }
        self.met.insert(path.to_owned(), value);
        self.inside.push((path.to_owned(), value));
        let result = self.compare(path, value, expected);
        self.inside.pop();
        result
    }

    fn compare(&mut self, path: &str, value: Value<'a>, expected: &Json) -> Result {
        let kind = value.kind();
        let same = match expected {
            Json::Null => matches!(kind, Kind::None),
            Json::Bool(expected) => matches!(kind, Kind::Bool(value) if value == *expected),
            Json::Number(number) => {
                matches!(kind, Kind::Int(ours) if ours.to_i64().is_some() && ours.to_i64() == number.as_i64())
            }
            Json::String(expected) => self.text_of(&kind) == Some(expected.as_bytes()),
            Json::Array(expected) => match kind {
                Kind::List(items) => return self.items(path, &items, expected),
                _ => false,
            },
            Json::Object(members) => match members.get("__type__").and_then(Json::as_str) {
                Some(tag) => return self.tagged(path, value, tag, expected),
                None => match kind {
                    Kind::Dict(dict) => {
                        let pairs = members.iter();
                        let pairs = pairs.map(|(name, value)| (name.clone().into(), value.clone()));
                        return self.dict(path, &dict, &pairs.collect::<Vec<_>>());
                    }
                    _ => false,
                },
            },
        };
        expect(same, path, &format!("{kind:?} for {expected}"))
    }

    fn tagged(&mut self, path: &str, value: Value<'a>, tag: &str, expected: &Json) -> Result {
        let kind = value.kind();
        let same = match (tag, &kind) {
            // In the text of protocol 0 `nan` has no sign.
            ("float", Kind::Float(number)) if number.is_nan() && self.view == View::Python2 => {
                expected["value"] == "nan"
            }
            ("float", Kind::Float(number)) => float(*number, expected),
            ("complex", Kind::Complex(real, imaginary)) => {
                float(*real, &expected["real"]) && float(*imaginary, &expected["imag"])
            }
            ("int", Kind::Int(number)) => decimal(number) == text(expected, "value"),
            ("str", Kind::Str(found)) => found.as_bytes() == hex(text(expected, "wtf8_hex")),
            ("str_repeat", Kind::Str(found)) => {
                let count = usize::try_from(expected["count"].as_u64().unwrap()).unwrap();
                found.as_bytes() == text(expected, "char").repeat(count).as_bytes()
            }
            ("py2str", Kind::Py2Str(bytes)) => **bytes == hex(text(expected, "hex")),
            ("bytes", Kind::Bytes(bytes)) | ("bytearray", Kind::ByteArray(bytes)) => {
                **bytes == hex(text(expected, "hex"))
            }
            ("tuple", Kind::Tuple(items)) => {
                return self.items(path, items, array(&expected["items"]));
            }
            ("deque", Kind::Deque(items, maxlen)) => {
                let maxlen = maxlen.as_ref().and_then(Integer::to_i64);
                expect(maxlen == expected["maxlen"].as_i64(), path, "maxlen")?;
                return self.items(path, items, array(&expected["items"]));
            }
            ("set", Kind::Set(items)) | ("frozenset", Kind::FrozenSet(items)) => {
                return self.set(path, items, array(&expected["items"]));
            }
            ("dict", Kind::Dict(dict)) | ("OrderedDict", Kind::OrderedDict(dict)) => {
                return self.dict(path, dict, &pairs(&expected["items"]));
            }
            ("defaultdict", Kind::DefaultDict(dict, factory)) => {
                let name = match factory.kind() {
                    Kind::Global(global) => Some(self.name(global)),
                    _ => None,
                };
                expect(name.as_deref() == expected["factory"].as_str(), path, "factory")?;
                return self.dict(path, dict, &pairs(&expected["items"]));
            }
            ("datetime", Kind::DateTime(moment)) => {
                let zone = &expected["tz"];
                moment.isoformat() == text(expected, "value")
                    && zone_is(moment.time_zone, zone)
                    && u64::from(moment.fold) == expected["fold"].as_u64().unwrap()
                    && moment.utcoffset().map(|offset| offset.total_microseconds())
                        == zone["utcoffset_seconds"].as_i64().map(|s| i128::from(s) * 1_000_000)
            }
            ("time", Kind::Time(time)) => {
                time.isoformat() == text(expected, "value")
                    && u64::from(time.fold) == expected["fold"].as_u64().unwrap()
                    && zone_is(time.time_zone, &expected["tz"])
            }
            ("date", Kind::Date(date)) => date.isoformat() == text(expected, "value"),
            ("timedelta", Kind::TimeDelta(delta)) => {
                let part = |name: &str| expected[name].as_i64().unwrap();
                i64::from(delta.days) == part("days")
                    && i64::from(delta.seconds) == part("seconds")
                    && i64::from(delta.microseconds) == part("microseconds")
            }
            ("Decimal", Kind::Decimal(number)) => *number == text(expected, "value"),
            ("UUID", Kind::Uuid(number)) => {
                format!("{number:032x}") == text(expected, "value").replace('-', "")
            }
            ("range", Kind::Range([start, end, step])) => {
                let [start, end, step] = [start, end, step].map(decimal);
                let repr = text(expected, "repr");
                (repr == format!("range({start}, {end})") && step == "1")
                    || (repr == format!("xrange({end})") && start == "0" && step == "1")
            }
            ("nest", _) => return self.nest(path, value, expected),
            ("global", Kind::Global(global)) => self.name(*global) == text(expected, "name"),
            ("object", Kind::SafeString(found)) => {
                text(expected, "class").starts_with("django.utils.safestring.Safe")
                    && found.as_bytes() == text(expected, "value").as_bytes()
                    && expected["state"] == serde_json::json!({})
            }
            ("object", Kind::Counter(dict)) => {
                expect(expected["class"] == "collections.Counter", path, "a Counter")?;
                return self.dict(path, dict, &pairs(&expected["items"]));
            }
            ("object" | "enum" | "lazy", Kind::Object(object)) => {
                self.opaque += 1;
                return self.opaque_object(path, *object, tag, expected);
            }
            _ => false,
        };
        expect(same, path, &format!("{kind:?} for {expected}"))
    }

    fn text_of<'k>(&self, kind: &Kind<'k>) -> Option<&'k [u8]> {
        match kind {
            Kind::Str(text) => Some(text.as_bytes()),
            Kind::Py2Str(bytes) if self.view == View::Python3 => Some(bytes),
            _ => None,
        }
    }

    fn list(&mut self, path: &str, items: &[Value<'a>], expected: &[Json]) -> Result {
        expect(items.len() == expected.len(), path, "another length")?;
        for (index, (item, expected)) in items.iter().zip(expected).enumerate() {
            self.check(&format!("{path}[{index}]"), *item, expected)?;
        }
        Ok(())
    }

    fn items(&mut self, path: &str, items: &Items<'a>, expected: &[Json]) -> Result {
        self.list(path, &items.iter().collect::<Vec<_>>(), expected)
    }

    /// The order of a set is nobody's.
    fn set(&mut self, path: &str, items: &Items<'a>, expected: &[Json]) -> Result {
        expect(items.len() == expected.len(), path, "another length")?;
        let mut left: Vec<_> = items.iter().collect();
        for expected in expected {
            let found =
                left.iter().position(|item| self.clone().check("", *item, expected).is_ok());
            left.swap_remove(found.ok_or_else(|| format!("{path}: no {expected}"))?);
        }
        Ok(())
    }

    fn dict(&mut self, path: &str, dict: &Dict<'a>, expected: &[(Json, Json)]) -> Result {
        self.pairs(path, &dict.iter().collect::<Vec<_>>(), expected)
    }

    fn pairs(
        &mut self,
        path: &str,
        ours: &[(Value<'a>, Value<'a>)],
        expected: &[(Json, Json)],
    ) -> Result {
        expect(ours.len() == expected.len(), path, "another length")?;
        for (index, (name, expected)) in expected.iter().enumerate() {
            let is_name = |key| Self::new(self.view).root(key, name).is_ok();
            let at = match self.view {
                View::Python2 if !is_name(ours[index].0) => {
                    ours.iter().position(|&(key, _)| is_name(key))
                }
                _ => Some(index),
            };
            let (key, value) = ours[at.ok_or_else(|| format!("{path}: no key {name}"))?];
            self.check(path, key, name)?;
            self.check(&format!("{path}[{name}]"), value, expected)?;
        }
        Ok(())
    }

    fn nest(&mut self, path: &str, value: Value<'a>, expected: &Json) -> Result {
        let mut value = value;
        for step in text(expected, "steps").chars() {
            let inner = match (step, value.kind()) {
                ('l', Kind::List(items)) if items.len() == 1 => items.get(0),
                ('d', Kind::Dict(dict)) if dict.len() == 1 => dict.get("k"),
                _ => None,
            };
            value = inner.ok_or_else(|| format!("{path}: not nested in {step}"))?;
        }
        self.check(path, value, &expected["leaf"])
    }

    /// The dotted name as the Python of this view has it.
    fn name(&self, global: Global<'_>) -> String {
        match (global.module().unwrap(), global.name().unwrap(), self.view) {
            // Pickles for Python 2 have its names.
            ("__builtin__", "long", View::Python3) => "builtins.int".to_owned(),
            ("__builtin__" | "exceptions", name, View::Python3) => format!("builtins.{name}"),
            (module, name, _) => format!("{module}.{name}"),
        }
    }

    /// What the pickle says of an object that its class has made something of.
    #[expect(clippy::too_many_lines, reason = "one arm per class")]
    fn opaque_object(
        &mut self,
        path: &str,
        object: Object<'a>,
        tag: &str,
        expected: &Json,
    ) -> Result {
        let mut parts = Parts::of(object);
        if let Kind::Object(inner) = parts.callable.kind() {
            let state = inner.state();
            parts = Parts { state, ..Parts::of(inner) };
        }
        let class = match parts.callable.kind() {
            Kind::Global(global) => self.name(global),
            other => return Err(format!("{path}: a call of {other:?}")),
        };
        let is = text(expected, "class");
        let at = |part: &str| format!("{path}.{part}");
        match (tag, &*class, is) {
            // Members are called by their value.
            ("enum", class, is) if class == is => {
                return self.list(&at("args"), &parts.args, &[expected["value"].clone()]);
            }
            ("lazy", "django.utils.functional._lazy_proxy_unpickle", _) => {
                let args = parts.args.get(1).map(|args| args.kind());
                let Some(Kind::Tuple(args)) = args else { return Err(at("args")) };
                return self.items(&at("args"), &args, &[expected["resolved"].clone()]);
            }
            // A function that makes the object, and a class that keeps its arguments.
            ("object", "pickmod.rebuild", "pickmod.Reduced") => {
                let state = &expected["state"];
                let args = [member(state, "a"), member(state, "b")];
                return self.list(&at("args"), &parts.args, &args);
            }
            ("object", "pickmod.ReducedState", "pickmod.ReducedState") => {
                let state = &expected["state"];
                self.list(&at("args"), &parts.args, &[member(state, "a")])?;
                return self.members(&at("state"), parts.state, state, &["extra"]);
            }
            ("object", "pickmod.NewArgsEx", "pickmod.NewArgsEx") => {
                let state = &expected["state"];
                self.list(&at("args"), &parts.args, &[member(state, "x")])?;
                self.members(&at("kwargs"), object.kwargs(), state, &["kw"])?;
                return self.members(&at("state"), parts.state, state, &["x", "kw"]);
            }
            ("object", "pickmod.TupleState", "pickmod.TupleState") => {
                let state = parts.state.ok_or_else(|| at("state"))?;
                return self.check(&at("state"), state, &member(&expected["state"], "got"));
            }
            ("object", "pickmod.WithState", "pickmod.WithState") => {
                return self.members(&at("state"), parts.state, &expected["state"], &["n", "tag"]);
            }
            // `__setstate__` takes the lists out of the state; the items are the last of each.
            (
                "object",
                "django.http.request.QueryDict" | "django.utils.datastructures.MultiValueDict",
                is,
            ) if class == is => {
                let Some(Kind::Dict(state)) = parts.state.map(Value::kind) else {
                    return Err(at("state"));
                };
                let Some(Kind::Dict(data)) = state.get("_data").map(Value::kind) else {
                    return Err(at("_data"));
                };
                self.dict(&at("_data"), &data, &pairs(&expected["items"]))?;
                for (name, expected) in attributes(&expected["state"]) {
                    let value = state.get(&name).ok_or_else(|| at(&name))?;
                    self.check(&at(&name), value, &expected)?;
                }
                return Ok(());
            }
            // `functools.partial(NewArgsEx.__new__, NewArgsEx, 1, kw=2)()`, up to protocol 3.
            ("object", "functools.partial", "pickmod.NewArgsEx") => {
                let Some(Kind::Tuple(partial)) = parts.state.take().map(Value::kind) else {
                    return Err(at("partial"));
                };
                let state = &expected["state"];
                let (args, kwargs) = (partial.get(1).unwrap(), partial.get(2));
                let Kind::Tuple(args) = args.kind() else { return Err(at("args")) };
                self.check(&at("x"), args.get(1).unwrap(), &member(state, "x"))?;
                self.members(&at("kwargs"), kwargs, state, &["kw"])?;
                return self.members(&at("state"), object.state(), state, &["x", "kw"]);
            }
            // Its class is the first argument.
            (
                "object",
                "django.db.models.base.model_unpickle",
                "django.contrib.auth.models.User",
            ) => {
                parts.args.clear();
            }
            ("object", class, is) if class == is => {}
            ("object", class, "__builtin__.instance") if object.is_old_style() => {
                expect(class == "pickmod.OldStyle", path, class)?;
            }
            _ => return Err(format!("{path}: {class} for {is}")),
        }
        self.state(&at("state"), parts.state, expected)?;
        if expected.get("args").is_some() {
            return self.list(&at("args"), &parts.args, array(&expected["args"]));
        }
        match expected["base"].as_str() {
            None => expect(parts.args.is_empty(), path, "arguments"),
            Some("list") => self.list(path, &parts.items, array(&expected["items"])),
            Some("dict") => self.pairs(path, &parts.pairs, &pairs(&expected["items"])),
            // `tuple.__new__(class, items)`, or as `__getnewargs__` has it.
            Some("tuple") => match parts.args.first().map(|first| first.kind()) {
                Some(Kind::Tuple(items)) if parts.args.len() == 1 => {
                    self.items(path, &items, array(&expected["items"]))
                }
                _ => self.list(path, &parts.args, array(&expected["items"])),
            },
            Some("py2str") => {
                let value = serde_json::json!({"__type__": "py2str", "hex": expected["hex"]});
                self.list(path, &parts.args, &[value])
            }
            Some(_) => self.list(path, &parts.args, &[expected["value"].clone()]),
        }
    }

    /// The attributes; slots come as the second half of a pair.
    fn state(&mut self, path: &str, state: Option<Value<'a>>, expected: &Json) -> Result {
        if expected.get("slots").is_some() {
            let pair = state.map(Value::kind);
            let Some(Kind::Tuple(pair)) = pair else { return Err(path.to_owned()) };
            expect(pair.len() == 2, path, "no pair")?;
            self.check(path, pair.get(0).unwrap(), &Json::Null)?;
            let names: Vec<_> = expected["slots"].as_object().unwrap().keys().collect();
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            return self.members(path, pair.get(1), &expected["slots"], &names);
        }
        let empty = |state: &Json| *state == serde_json::json!({}) || state.is_null();
        match state {
            None => expect(empty(&expected["state"]), path, "no state"),
            Some(state) if empty(&expected["state"]) => {
                let none = matches!(state.kind(), Kind::Dict(dict) if dict.is_empty());
                expect(none || matches!(state.kind(), Kind::None), path, "a state")
            }
            Some(state) => self.check(path, state, &expected["state"]),
        }
    }

    /// Some attributes of a state, of which there are no others.
    fn members(
        &mut self,
        path: &str,
        state: Option<Value<'a>>,
        expected: &Json,
        names: &[&str],
    ) -> Result {
        let Some(state) = state else { return Ok(()) };
        let Kind::Dict(dict) = state.kind() else { return Err(path.to_owned()) };
        expect(dict.len() == names.len(), path, "other members")?;
        for name in names {
            let value = dict.get(name).ok_or_else(|| format!("{path}: no {name}"))?;
            self.check(path, value, &member(expected, name))?;
        }
        Ok(())
    }
}

/// How an object is made, whichever way the pickle has of saying so.
struct Parts<'a> {
    callable: Value<'a>,
    args: Vec<Value<'a>>,
    state: Option<Value<'a>>,
    items: Vec<Value<'a>>,
    pairs: Vec<(Value<'a>, Value<'a>)>,
}

impl<'a> Parts<'a> {
    fn of(object: Object<'a>) -> Self {
        let Kind::Tuple(args) = object.args().kind() else { panic!("arguments are a tuple") };
        let mut parts = Self {
            callable: object.callable(),
            args: args.iter().collect(),
            state: object.state(),
            items: object.items().iter().collect(),
            pairs: object.pairs().iter().collect(),
        };
        // Up to protocol 1: the class, the class of its content, the content.
        let through = match parts.callable.kind() {
            Kind::Global(global) => global.name() == Some("_reconstructor"),
            _ => false,
        };
        if through {
            parts.callable = parts.args[0];
            match parts.args[2].kind() {
                Kind::None => parts.args.clear(),
                Kind::List(items) => {
                    parts.items.extend(items.iter());
                    parts.args.clear();
                }
                Kind::Dict(pairs) => {
                    parts.pairs.extend(pairs.iter());
                    parts.args.clear();
                }
                _ => {
                    parts.args.drain(..2);
                }
            }
        }
        parts
    }
}

fn expect(holds: bool, path: &str, what: &str) -> Result {
    if holds { Ok(()) } else { Err(format!("{path}: {what}")) }
}

fn array(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Pairs as they are written: a list of lists of two.
fn pairs(value: &Json) -> Vec<(Json, Json)> {
    array(value).iter().map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// Names and values of a dict in either of its forms.
fn attributes(dict: &Json) -> Vec<(String, Json)> {
    if dict["__type__"] != "dict" {
        let members = dict.as_object().unwrap().iter();
        return members.map(|(name, value)| (name.clone(), value.clone())).collect();
    }
    let named = |(key, value): (Json, Json)| {
        let name = if key.is_string() { key.as_str() } else { key["text"].as_str() };
        (name.unwrap().to_owned(), value)
    };
    pairs(&dict["items"]).into_iter().map(named).collect()
}

fn member(dict: &Json, name: &str) -> Json {
    let found = attributes(dict).into_iter().find(|(key, _)| key == name);
    found.unwrap_or_else(|| panic!("no {name}")).1
}

fn decimal(number: &Integer<'_>) -> String {
    number.to_decimal().unwrap_or_default()
}

/// A zone by its name, or by its class and the offset that the text has. Of `pytz` the offset is kept.
fn zone_is(zone: Option<TimeZone<'_>>, expected: &Json) -> bool {
    match zone {
        None => expected.is_null(),
        Some(TimeZone::Named(key)) => {
            expected["class"] == "zoneinfo.ZoneInfo" && expected["key"] == key
        }
        Some(TimeZone::Offset(_)) => expected["class"].as_str().is_some_and(|class| {
            class.starts_with("pytz.")
                || [
                    "datetime.timezone",
                    "django.utils.timezone.FixedOffset",
                    "django.utils.timezone.UTC",
                ]
                .contains(&class)
        }),
        _ => false,
    }
}

fn float(number: f64, expected: &Json) -> bool {
    format!("{:016x}", number.to_bits()) == text(expected, "bits")
}
