//! What becomes of Python objects where a site writes JSON: a policy for each type.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;

use crate::codec::graph::{Kind, Value};
use crate::codec::{EncodeError, SessionData};

/// What becomes of an object that JSON has no form for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The session is left as it is, and reported
    #[default]
    Keep,
    /// Text or a list that stands for it
    Json,
    /// The entry of the session that holds it is left out
    Drop,
}

/// The types that a policy may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Type {
    Bytes,
    Date,
    Datetime,
    Decimal,
    Deque,
    Set,
    Time,
    Timedelta,
    Uuid,
    /// Objects of the site's own classes, and whatever else has no form at all.
    Other,
}

/// `FORM` for all types, or `TYPE=FORM` for one.
#[derive(Clone, Copy, Debug)]
struct Rule {
    of: Option<Type>,
    form: Form,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (of, form) = match text.split_once('=') {
            Some((of, form)) => (Some(one_of::<Type>(of)?), form),
            None => (None, text),
        };
        let form = one_of::<Form>(form)?;
        if (of, form) == (Some(Type::Other), Form::Json) {
            return Err(
                "there is nothing in JSON that stands for an object of another class".into()
            );
        }
        Ok(Self { of, form })
    }
}

fn one_of<T: ValueEnum>(name: &str) -> Result<T, String> {
    T::from_str(name, false).map_err(|_| {
        let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        format!("it is none of {}", names.join(", "))
    })
}

/// What is asked for.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Python objects")]
pub(super) struct Objects {
    /// What becomes of objects without a form in JSON: keep, json or drop; TYPE=FORM for one type
    ///
    /// keep leaves the session as it is and reports it; json writes what docs/operations.md says for each type
    /// (a datetime as text, a set as a list); drop leaves out the entry of the session that holds the object.
    /// Types are bytes, date, datetime, decimal, deque, set, time, timedelta, uuid and other. May be given
    /// more than once: --objects json --objects bytes=drop.
    #[arg(long = "objects", value_name = "[TYPE=]FORM")]
    rules: Vec<Rule>,
}

impl Objects {
    fn form(&self, of: Type) -> Form {
        let fitting = |rule: &&Rule| rule.of.is_none_or(|it| it == of);
        let form = self.rules.iter().rev().find(fitting).map_or(Form::Keep, |rule| rule.form);
        if (of, form) == (Type::Other, Form::Json) { Form::Keep } else { form }
    }

    /// Prepares a session for JSON; what is still in the way afterwards is the error of writing it.
    ///
    /// Returns what was in the entries that are left out.
    pub(super) fn settle(&self, data: &mut SessionData) -> Result<Kinds, EncodeError> {
        let mut dropped = Kinds::new();
        if self.rules.is_empty() || !data.is_python() {
            return Ok(dropped);
        }
        let mut json = Vec::new();
        let mut without = Vec::new();
        for (key, value) in data.objects() {
            let Some(name) = key.as_text() else { continue };
            let found = types(value);
            let mut forms = found.iter().map(|(of, _)| self.form(*of));
            if forms.clone().any(|form| form == Form::Drop) {
                without.push(name.to_owned());
                let left_out = found.iter().filter(|(of, _)| self.form(*of) == Form::Drop);
                dropped.extend(left_out.map(|(_, kind)| *kind));
            } else if !found.is_empty() && forms.all(|form| form == Form::Json) {
                let text = value.to_json().map_err(|_| EncodeError::Unrepresentable {
                    kind: "a value that contains itself, or a key of this type",
                })?;
                json.push((name.to_owned(), text));
            }
        }
        for (name, text) in json {
            data.insert_json(&name, text);
        }
        for name in without {
            data.remove(&name);
        }
        Ok(dropped)
    }
}

/// The types in a value that JSON has no form for, with words for them.
fn types(value: Value<'_>) -> Vec<(Type, &'static str)> {
    let mut found = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        if !seen.insert(value.id()) {
            continue;
        }
        let kind = value.kind();
        let of = match &kind {
            Kind::None
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Float(_)
            | Kind::Str(_)
            | Kind::SafeString(_) => None,
            Kind::Py2Str(bytes) => std::str::from_utf8(bytes).is_err().then_some(Type::Bytes),
            Kind::List(items) | Kind::Tuple(items) => {
                rest.extend(items.iter());
                None
            }
            Kind::Dict(pairs)
            | Kind::OrderedDict(pairs)
            | Kind::Counter(pairs)
            | Kind::DefaultDict(pairs, _) => {
                for (key, value) in pairs.iter() {
                    let is_key = matches!(
                        key.kind(),
                        Kind::Str(_)
                            | Kind::SafeString(_)
                            | Kind::None
                            | Kind::Bool(_)
                            | Kind::Int(_)
                            | Kind::Float(_)
                    ) || key.as_text().is_some();
                    if !is_key {
                        found.insert(Type::Other, "a key of another type");
                    }
                    rest.push(value);
                }
                None
            }
            Kind::Set(items) | Kind::FrozenSet(items) => {
                rest.extend(items.iter());
                Some(Type::Set)
            }
            Kind::Deque(items, _) => {
                rest.extend(items.iter());
                Some(Type::Deque)
            }
            Kind::Bytes(_) | Kind::ByteArray(_) => Some(Type::Bytes),
            Kind::DateTime(_) => Some(Type::Datetime),
            Kind::Date(_) => Some(Type::Date),
            Kind::Time(_) => Some(Type::Time),
            Kind::TimeDelta(_) => Some(Type::Timedelta),
            Kind::Decimal(_) => Some(Type::Decimal),
            Kind::Uuid(_) => Some(Type::Uuid),
            _ => Some(Type::Other),
        };
        if let Some(of) = of {
            found.insert(of, kind.description());
        }
    }
    found.into_iter().collect()
}

/// Words for what was in entries that are left out.
pub(super) type Kinds = Vec<&'static str>;

/// How many entries were left out, by what they held.
#[derive(Default)]
pub(super) struct Dropped(Mutex<BTreeMap<&'static str, u64>>);

impl Dropped {
    pub(super) fn add(&self, kinds: &[&'static str]) {
        if kinds.is_empty() {
            return;
        }
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in kinds {
            *entries.entry(kind).or_default() += 1;
        }
    }

    pub(super) fn entries(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dropped").field(&self.entries()).finish()
    }
}
