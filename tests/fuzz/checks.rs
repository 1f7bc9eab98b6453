//! What has to hold for any input whatever, one function per fuzz target. `tests/rust/fuzz.rs` runs them
//! over the saved corpora too.

use std::collections::HashSet;

use django_session::codec::cache::{
    CacheBackend, CacheCodec, CacheDecodeError, CacheSerializer, Compressor,
};
use django_session::codec::graph::{Dict, Graph, Items, Kind, Value};
use django_session::codec::pickle::{Limits, PickleErrorKind};
use django_session::codec::{Compression, Format, Name, SESSION_SALT, Serializer, ValueError};
use django_session::signing::{
    Algorithm, CookieSalt, CookieSigner, PasswordResetTokenGenerator, PasswordResetUser, Signer,
    TimestampSigner, TokenForm,
};
use django_session::{DateTime, SecretKey, SessionCodec, SessionData};

/// Small limits, so that a machine with little memory finds what a large one would.
fn limits() -> Limits {
    Limits::default().with_nodes(1 << 16)
}

fn key() -> SecretKey {
    SecretKey::new("fuzz").unwrap()
}

/// What payloads may inflate to.
const MAX_SIZE: usize = 1 << 20;

/// How much text is compared; more takes time and shows nothing new.
const MAX_TEXT: usize = 1 << 16;

/// A codec that reads every form and both serializers.
fn lenient() -> SessionCodec {
    SessionCodec::new(&key())
        .accept(Format::ALL)
        .accept_serializers([Serializer::Json, Serializer::Pickle])
        .with_max_size(MAX_SIZE)
}

/// Values of a cache: what is read is written, and then stays what it is. The first byte chooses the
/// backend, the rest is the value.
pub(crate) fn cache_value(input: &[u8]) {
    let Some((&choice, value)) = input.split_first() else { return };
    let codec = cache_codec(choice);
    if let Ok(found) = codec.unwrap(value) {
        assert!(found.payload.len() <= MAX_SIZE.max(value.len()));
    }
    let Ok(found) = codec.decode(value) else { return };
    let ours = match codec.encode(&found.data, found.expiry) {
        Ok(ours) => ours,
        Err(error) => {
            assert_eq!(found.serializer, CacheSerializer::Pickle, "{error}");
            return;
        }
    };
    match codec.decode(&ours) {
        Ok(again) => {
            assert_eq!(again.data.len(), found.data.len());
            assert_eq!(codec.encode(&again.data, again.expiry).unwrap(), ours);
        }
        Err(CacheDecodeError::TooLarge { .. }) => {}
        Err(error) => assert!(error.is_too_large(), "{error}"),
    }
}

fn cache_codec(choice: u8) -> CacheCodec {
    let serializers = [CacheSerializer::Json, CacheSerializer::MsgPack, CacheSerializer::Pickle];
    let compressors = [
        Compressor::Gzip,
        Compressor::Identity,
        Compressor::Lz4,
        Compressor::Lzma,
        Compressor::Zlib,
        Compressor::Zstd,
    ];
    let backend = match choice % 22 {
        0 => CacheBackend::Database,
        1 => CacheBackend::FileBased,
        2 => CacheBackend::Memcached,
        3 => CacheBackend::Redis,
        other => CacheBackend::DjangoRedis {
            serializer: serializers[usize::from(other - 4) / 6],
            compressor: compressors[usize::from(other - 4) % 6],
        },
    };
    CacheCodec::new(backend).with_max_size(MAX_SIZE)
}

/// Any text is refused: nobody but the holder of the key can make one that is not.
pub(crate) fn decode(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let strict = SessionCodec::new(&key());
    assert!(strict.decode(text).is_err_and(|error| error.is_bad_signature()));
    assert!(lenient().decode(text).is_err());
}

/// Whatever is compressed comes back, with either way of compressing.
pub(crate) fn deflate(payload: &[u8]) {
    let codec = SessionCodec::new(&key());
    for compression in [Compression::Fast, Compression::Small] {
        let codec = codec.clone().with_compression(compression);
        let text = codec.encode_payload(payload, 0);
        assert_eq!(codec.decode_payload(&text).unwrap().payload, payload);
    }
}

/// A payload signed in each form is read or refused, and what was read is written as it was.
pub(crate) fn formats(payload: &[u8]) {
    for format in Format::ALL {
        for serializer in [Serializer::Json, Serializer::Pickle] {
            let codec = SessionCodec::new(&key()).with_format(format).with_serializer(serializer);
            let text = codec.encode_payload(payload, 0);
            let found = codec.decode_payload(&text).unwrap();
            assert!(found.payload == payload && found.format == format);
            // Other forms are not read unless they are asked for.
            let strict = SessionCodec::new(&key()).with_serializer(serializer);
            assert!(format == Format::Signed || strict.decode_payload(&text).is_err());

            let Ok(decoded) = codec.decode(&text) else { continue };
            let Ok(written) = codec.encode(&decoded.data, 0) else { continue };
            let again = codec.decode(&written).unwrap();
            assert!(again.data == decoded.data);
            assert_eq!(codec.encode(&again.data, 0).unwrap(), written);
        }
    }
}

/// Text that is read as a date is written as one that is read as the same.
pub(crate) fn dates(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(date) = DateTime::fromisoformat(text) else { return };
    let written = date.isoformat();
    // The year before the first, to which an offset leads, has no text.
    if !written.starts_with("0000") && !written.starts_with('-') {
        assert_eq!(DateTime::fromisoformat(&written), Some(date));
    }
}

/// Text that is read as a session is written back as one that means the same, and reading it into types
/// neither panics nor overflows the stack.
pub(crate) fn json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(data) = SessionData::from_json(text) else { return };
    let json = data.to_json().unwrap();
    let again = SessionData::from_json(&json).unwrap();
    assert_eq!(again.to_json().unwrap(), json);
    for name in data.keys().filter_map(Name::to_str) {
        let _ = data.get::<Vec<Vec<f64>>>(&name);
        let _ = data.get::<std::collections::BTreeMap<i64, Option<String>>>(&name);
        let _ = data.get::<(u8, bool, char)>(&name);
    }
    for protocol in [2, 5] {
        pickled(&data, protocol);
    }
}

/// A session of JSON text is pickled as what objects made of the text are pickled as.
fn pickled(data: &SessionData, protocol: u8) {
    let read = |pickle: &[u8]| {
        SessionData::from_graph(Graph::from_pickle(pickle, &Limits::default()).unwrap()).unwrap()
    };
    let pickle = match data.to_pickle(protocol) {
        Ok(pickle) => pickle,
        Err(error) => {
            assert_eq!(error.kind(), PickleErrorKind::TooDeep);
            return;
        }
    };
    let mut objects = read(&[0x80, protocol, b'}', b'.']);
    objects.update(data);
    assert_eq!(entries(&read(&pickle)), entries(&objects));
}

/// Bytes that are read as a pickle are written as one that says the same, and a session in it can be
/// changed without a change to the rest.
pub(crate) fn pickle(input: &[u8]) {
    let Ok(graph) = Graph::from_pickle(input, &limits()) else { return };
    walk(graph.root());
    let json = graph.root().to_json();
    let written = match graph.to_pickle() {
        Ok(written) => written,
        Err(error) => {
            assert!(matches!(error.kind(), PickleErrorKind::TooDeep | PickleErrorKind::TooLarge));
            return;
        }
    };
    let again = Graph::from_pickle(&written, &Limits::default()).unwrap();
    assert!(again.to_pickle().unwrap() == written);
    let again = again.root().to_json();
    // Texts that sharing has multiplied may be too long for the one and not for the other.
    let is_long = |json: &Result<String, ValueError>| match json {
        Ok(text) => text.len() > MAX_TEXT,
        Err(error) => error.to_string().contains("too long"),
    };
    if is_long(&json) || is_long(&again) {
        return;
    }
    assert_eq!(again, json);
    if let Ok(data) = SessionData::from_graph(graph) {
        edit(data);
    }
}

/// Changes one entry of a session, and compares the others.
fn edit(mut data: SessionData) {
    let name = "an edit";
    data.remove(name);
    let Some(before) = entries(&data) else { return };
    data.insert(name, &[1]).unwrap();
    let Ok(written) = data.to_pickle(4) else { return };
    let graph = Graph::from_pickle(&written, &Limits::default()).unwrap();
    let mut again = SessionData::from_graph(graph).unwrap();
    assert_eq!(again.get::<Vec<u8>>(name).unwrap(), Some(vec![1]));
    assert!(again.remove(name));
    assert_eq!(entries(&again), Some(before));
}

/// Names and the JSON texts of their values, where they have one; nothing if that is a lot.
fn entries(data: &SessionData) -> Option<Vec<(String, Option<String>)>> {
    let mut entries = Vec::new();
    let mut length = 0;
    for (name, raw) in data.iter_raw() {
        let raw = raw.ok().map(std::borrow::Cow::into_owned);
        length += raw.as_ref().map_or(0, String::len);
        if length > MAX_TEXT {
            return None;
        }
        entries.push((name.as_escaped().to_owned(), raw));
    }
    Some(entries)
}

/// Looks at every object that can be reached, once.
fn walk(root: Value<'_>) {
    let mut seen = HashSet::new();
    let mut open = vec![root];
    while let Some(value) = open.pop() {
        if !seen.insert(value.identity()) {
            continue;
        }
        look(value, &mut open);
    }
}

fn look<'a>(value: Value<'a>, open: &mut Vec<Value<'a>>) {
    let items = |items: &Items<'a>, open: &mut Vec<Value<'a>>| open.extend(items.iter());
    let pairs = |pairs: &Dict<'a>, open: &mut Vec<Value<'a>>| {
        open.extend(pairs.iter().flat_map(|(key, value)| [key, value]));
    };
    match value.kind() {
        Kind::Int(number) => {
            let _ = (number.to_i64(), number.to_u128(), number.to_decimal(), number.to_le_bytes());
        }
        Kind::Str(text) | Kind::SafeString(text) => {
            let _ = text.to_str();
        }
        Kind::List(list)
        | Kind::Tuple(list)
        | Kind::Set(list)
        | Kind::FrozenSet(list)
        | Kind::Deque(list, _) => items(&list, open),
        Kind::Dict(dict) | Kind::OrderedDict(dict) | Kind::Counter(dict) => pairs(&dict, open),
        Kind::DefaultDict(dict, factory) => {
            pairs(&dict, open);
            open.push(factory);
        }
        Kind::DateTime(moment) => {
            let _ = (moment.isoformat(), moment.utcoffset());
        }
        Kind::Date(date) => {
            let _ = date.isoformat();
        }
        Kind::Time(time) => {
            let _ = time.isoformat();
        }
        Kind::TimeDelta(delta) => {
            let _ = delta.isoformat();
        }
        Kind::Global(global) => {
            let _ = (global.module(), global.name());
        }
        Kind::Object(object) => {
            open.extend([object.callable(), object.args()]);
            open.extend(object.kwargs());
            open.extend(object.state());
            items(&object.items(), open);
            pairs(&object.pairs(), open);
        }
        _ => {}
    }
}

/// No text is taken for signed, and every text that was signed is found again.
pub(crate) fn signing(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let key = key();
    let signer = Signer::new(&key, "salt");
    let timed = TimestampSigner::new(&key, "salt");
    let cookies = CookieSigner::new(&key, "name", "salt").accept_salts([CookieSalt::Legacy]);
    assert!(signer.unsign(text).is_err());
    assert!(timed.unsign(text, None).is_err());
    assert!(cookies.unsign(text, None).is_err());
    assert!(signer.unsign_payload(text).is_err());
    assert_eq!(signer.unsign(&signer.sign(text)).unwrap().value, text);
    let now = i64::try_from(text.len()).unwrap();
    assert_eq!(timed.unsign(&timed.sign(text, now), None).unwrap().value, text);
    assert_eq!(cookies.unsign(&cookies.sign(text, now), None).unwrap().value, text);
    // What is inside a good signature need not be an object.
    let _ = signer.unsign_payload(&signer.sign(text));
    let _ = signer.unsign_object::<Vec<f64>>(&signer.sign(text));

    let user = PasswordResetUser { pk: text, password: text, last_login: None, email: text };
    let tokens = PasswordResetTokenGenerator::new(&key)
        .accept_forms([TokenForm::Days, TokenForm::Seconds, TokenForm::SecondsAndEmail])
        .accept_algorithms([Algorithm::Sha1]);
    let now = jiff::civil::date(2023, 11, 15).at(9, 0, 0, 0);
    assert!(tokens.check_token(&user, text, now).is_err());
    assert!(tokens.check_token(&user, &tokens.make_token(&user, now), now).is_ok());
}

/// Whatever is inside a good signature, plain or behind a dot, is read or refused within the limit.
pub(crate) fn signed(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let codec = lenient();
    let signer = TimestampSigner::new(&key(), SESSION_SALT);
    if let Ok(decoded) = codec.decode(&signer.sign(text, 0)) {
        let codec = codec.with_serializer(decoded.serializer);
        let Ok(written) = codec.encode(&decoded.data, 0) else { return };
        let again = codec.decode(&written).unwrap();
        assert!(again.data == decoded.data);
    }
}
