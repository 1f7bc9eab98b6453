//! Keys, wrappings and timeouts of caches for Python.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::{convert, error, pickle};
use crate::codec::cache::{
    self, Base64Reading, CacheBackend, CacheCodec, CacheDecodeError, CacheEngine, CacheKeys,
    CacheSerializer, Compressor, RedisTimeout, Unwrapped,
};
use crate::codec::pickle::Limits;
use crate::codec::{DEFAULT_MAX_SIZE, SessionData};

/// Values from this length on are worked on without the interpreter's lock: below it, handing the
/// lock over costs more than the others gain.
const LARGE: usize = 32 << 10;

const _: () = assert!(DEFAULT_MAX_SIZE == 67_108_864);

#[pyclass(frozen, name = "CacheCodec", module = "django_session_rs.cache_values")]
pub(super) struct PyCacheCodec {
    codec: CacheCodec,
}

#[pymethods]
impl PyCacheCodec {
    // A literal, since Python shows it; the assertion above ties it to the constant.
    #[new]
    #[pyo3(signature = (
        backend,
        *,
        serializer = "pickle",
        compressor = "identity",
        pickle_protocol = None,
        strict_base64 = false,
        max_size = 67_108_864,
    ))]
    fn new(
        backend: &str,
        serializer: &str,
        compressor: &str,
        pickle_protocol: Option<u8>,
        strict_base64: bool,
        max_size: usize,
    ) -> PyResult<Self> {
        let serializer = serializer_of(serializer)?;
        let compressor = compressor_of(compressor)?;
        let backend = match backend {
            "database" => CacheBackend::Database,
            "django-redis" => CacheBackend::DjangoRedis { serializer, compressor },
            "file" => CacheBackend::FileBased,
            "memcached" => CacheBackend::Memcached,
            "redis" => CacheBackend::Redis,
            _ => {
                return Err(PyValueError::new_err(
                    "backend must be 'database', 'django-redis', 'file', 'memcached' or 'redis'",
                ));
            }
        };
        let plain = (serializer, compressor) == (CacheSerializer::Pickle, Compressor::Identity);
        if !plain && !matches!(backend, CacheBackend::DjangoRedis { .. }) {
            return Err(PyValueError::new_err(
                "only the backend 'django-redis' has a serializer and a compressor",
            ));
        }
        let base64 = if strict_base64 { Base64Reading::Strict } else { Base64Reading::Lenient };
        let mut codec =
            CacheCodec::new(backend).with_base64_reading(base64).with_max_size(max_size);
        if let Some(protocol) = pickle_protocol {
            codec = codec.with_pickle_protocol(pickle::checked_protocol(protocol)?);
        }
        Ok(Self { codec })
    }

    #[pyo3(signature = (value, *, flags = None))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        value: &Bound<'_, PyAny>,
        flags: Option<u32>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let found = self.take(py, bytes_of(value)?, flags)?;
        let session = match found.serializer {
            CacheSerializer::Json => {
                let data = self.codec.read(found).map(|found| found.data.to_json());
                match data.map_err(|failure| error::cache_to_py(py, &failure))? {
                    Ok(json) => convert::from_json(py, json.as_bytes())?,
                    Err(_) => return Err(error::unreadable_json(py)),
                }
            }
            CacheSerializer::MsgPack => match cache::graph_from_msgpack(&found.payload) {
                Ok(graph) => pickle::objects(py, &graph)?,
                Err(failure) => return Err(error::cache_to_py(py, &failure.into())),
            },
            CacheSerializer::Pickle => {
                let limits = Limits::default().with_size(self.codec.max_size());
                pickle::load(py, &found.payload, &limits, None)?
            }
        };
        session.cast_into::<PyDict>().map_err(|_| {
            error::cache_to_py(py, &CacheDecodeError::NotASession { found: "another object" })
        })
    }

    #[pyo3(signature = (data, *, expiry = None))]
    fn encode<'py>(
        &self,
        data: &Bound<'py, PyDict>,
        expiry: Option<f64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let py = data.py();
        let value = match self.codec.serializer() {
            CacheSerializer::Json => match self.encode_objects(data) {
                Ok(value) => value,
                // Python's own encoder knows more types, and what to raise for others.
                Err(_) => self.codec.wrap(&django_json(data)?, expiry),
            },
            CacheSerializer::MsgPack => self.encode_objects(data)?,
            CacheSerializer::Pickle => {
                let payload = pickle::dump(data, self.codec.pickle_protocol())?;
                self.codec.wrap(&payload, expiry)
            }
        };
        Ok(PyBytes::new(py, &value))
    }

    #[pyo3(signature = (value, *, flags = None))]
    fn unwrap(
        &self,
        py: Python<'_>,
        value: &Bound<'_, PyAny>,
        flags: Option<u32>,
    ) -> PyResult<UnwrappedValue> {
        self.take(py, bytes_of(value)?, flags).map(|found| UnwrappedValue::new(py, &found))
    }

    #[pyo3(signature = (payload, *, expiry = None))]
    fn wrap<'py>(
        &self,
        py: Python<'py>,
        payload: &[u8],
        expiry: Option<f64>,
    ) -> Bound<'py, PyBytes> {
        let wrap = || self.codec.wrap(payload, expiry);
        let value = if payload.len() < LARGE { wrap() } else { py.detach(wrap) };
        PyBytes::new(py, &value)
    }
}

impl PyCacheCodec {
    fn take<'a>(
        &self,
        py: Python<'_>,
        value: &'a [u8],
        flags: Option<u32>,
    ) -> PyResult<Unwrapped<'a>> {
        let unwrap = || match flags {
            None => self.codec.unwrap(value),
            Some(flags) => self.codec.unwrap_flagged(value, flags),
        };
        let found = if value.len() < LARGE { unwrap() } else { py.detach(unwrap) };
        found.map_err(|failure| error::cache_to_py(py, &failure))
    }

    /// A session whose objects all have a form in the serializer.
    fn encode_objects(&self, data: &Bound<'_, PyDict>) -> PyResult<Vec<u8>> {
        let refuse = |failure: String| PyTypeError::new_err(failure);
        let graph = pickle::graph(data)?;
        let data = SessionData::from_graph(graph).map_err(|error| refuse(error.to_string()))?;
        // No `FileBasedCache` has another serializer than pickle.
        self.codec.encode(&data, None).map_err(|error| refuse(error.to_string()))
    }
}

/// The bytes of a value. The column of a `DatabaseCache` is text.
fn bytes_of<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<&'a [u8]> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.to_str()?.as_bytes()),
        Err(_) => Ok(value.cast::<PyBytes>()?.as_bytes()),
    }
}

/// `json.dumps(data, cls=DjangoJSONEncoder).encode()`.
fn django_json(data: &Bound<'_, PyDict>) -> PyResult<Vec<u8>> {
    let py = data.py();
    let options = PyDict::new(py);
    let encoder = py.import("django.core.serializers.json")?.getattr("DjangoJSONEncoder")?;
    options.set_item("cls", encoder)?;
    let text = py.import("json")?.call_method("dumps", (data,), Some(&options))?;
    Ok(text.cast::<PyString>()?.to_str()?.as_bytes().to_vec())
}

fn serializer_of(name: &str) -> PyResult<CacheSerializer> {
    match name {
        "json" => Ok(CacheSerializer::Json),
        "msgpack" => Ok(CacheSerializer::MsgPack),
        "pickle" => Ok(CacheSerializer::Pickle),
        _ => Err(PyValueError::new_err("serializer must be 'json', 'msgpack' or 'pickle'")),
    }
}

fn name_of(serializer: CacheSerializer) -> &'static str {
    match serializer {
        CacheSerializer::Json => "json",
        CacheSerializer::MsgPack => "msgpack",
        CacheSerializer::Pickle => "pickle",
    }
}

fn compressor_of(name: &str) -> PyResult<Compressor> {
    match name {
        "gzip" => Ok(Compressor::Gzip),
        "identity" => Ok(Compressor::Identity),
        "lz4" => Ok(Compressor::Lz4),
        "lzma" => Ok(Compressor::Lzma),
        "zlib" => Ok(Compressor::Zlib),
        "zstd" => Ok(Compressor::Zstd),
        _ => Err(PyValueError::new_err(
            "compressor must be 'gzip', 'identity', 'lz4', 'lzma', 'zlib' or 'zstd'",
        )),
    }
}

/// What `CacheCodec.unwrap` found.
#[pyclass(frozen, module = "django_session_rs.cache_values")]
pub(super) struct UnwrappedValue {
    #[pyo3(get)]
    payload: Py<PyBytes>,
    #[pyo3(get)]
    serializer: &'static str,
    #[pyo3(get)]
    compressed: bool,
    #[pyo3(get)]
    expiry: Option<f64>,
}

impl UnwrappedValue {
    fn new(py: Python<'_>, found: &Unwrapped<'_>) -> Self {
        Self {
            payload: PyBytes::new(py, &found.payload).unbind(),
            serializer: name_of(found.serializer),
            compressed: found.compressed,
            expiry: found.expiry,
        }
    }
}

#[pymethods]
impl UnwrappedValue {
    fn __repr__(&self) -> String {
        let compressed = if self.compressed { "True" } else { "False" };
        let expiry = self.expiry.map_or_else(|| "None".to_owned(), |expiry| format!("{expiry:?}"));
        format!(
            "<UnwrappedValue serializer={:?} compressed={compressed} expiry={expiry}>",
            self.serializer
        )
    }
}

#[pyclass(frozen, name = "CacheKeys", module = "django_session_rs.cache_values")]
pub(super) struct PyCacheKeys {
    keys: CacheKeys,
    /// A function of Python's, with what it gets besides the key.
    function: Option<Py<PyAny>>,
    key_prefix: String,
    version: Py<PyAny>,
}

#[pymethods]
impl PyCacheKeys {
    #[new]
    #[pyo3(signature = (
        engine = "cache",
        *,
        key_prefix = "",
        version = None,
        key_function = None,
        cache_key_prefix = None,
    ))]
    fn new(
        py: Python<'_>,
        engine: &str,
        key_prefix: &str,
        version: Option<&Bound<'_, PyAny>>,
        key_function: Option<Py<PyAny>>,
        cache_key_prefix: Option<&str>,
    ) -> PyResult<Self> {
        let engine = match engine {
            "cache" => CacheEngine::Cache,
            "cached_db" => CacheEngine::CachedDb,
            _ => return Err(PyValueError::new_err("engine must be 'cache' or 'cached_db'")),
        };
        let version = match version {
            Some(version) => version.clone(),
            None => 1_u8.into_pyobject(py)?.into_any(),
        };
        let mut keys = CacheKeys::new(engine)
            .with_key_prefix(key_prefix)
            .with_version(version.str()?.to_str()?);
        if let Some(prefix) = cache_key_prefix {
            keys = keys.with_cache_key_prefix(prefix);
        }
        let key_prefix = key_prefix.to_owned();
        Ok(Self { keys, function: key_function, key_prefix, version: version.unbind() })
    }

    fn cache_key(&self, session_key: &str) -> String {
        self.keys.cache_key(session_key)
    }

    fn server_key(&self, py: Python<'_>, session_key: &str) -> PyResult<String> {
        match &self.function {
            None => Ok(self.keys.server_key(session_key)),
            Some(function) => {
                let key = self.keys.cache_key(session_key);
                function.call1(py, (key, &self.key_prefix, &self.version))?.extract(py)
            }
        }
    }
}

#[pyfunction]
pub(super) fn check_memcached_key(py: Python<'_>, server_key: &str) -> PyResult<()> {
    cache::check_memcached_key(server_key).map_err(|failure| error::invalid_cache_key(py, failure))
}

#[pyfunction]
pub(super) fn check_database_key(py: Python<'_>, server_key: &str) -> PyResult<()> {
    cache::check_database_key(server_key).map_err(|failure| error::invalid_cache_key(py, failure))
}

#[pyfunction]
pub(super) fn file_name(server_key: &str) -> String {
    cache::file_name(server_key)
}

#[pyfunction]
pub(super) fn redis_timeout(timeout: f64) -> u64 {
    number(cache::redis_timeout(timeout))
}

#[pyfunction]
pub(super) fn django_redis_timeout(timeout: f64) -> u64 {
    number(cache::django_redis_timeout(timeout))
}

/// Nothing that is not deleted has a timeout of zero.
fn number(timeout: RedisTimeout) -> u64 {
    match timeout {
        RedisTimeout::Delete => 0,
        RedisTimeout::Milliseconds(number) | RedisTimeout::Seconds(number) => number,
    }
}

#[pyfunction]
pub(super) fn memcached_exptime(timeout: f64, now: f64) -> i64 {
    cache::memcached_exptime(timeout, now)
}

#[pyfunction]
pub(super) fn file_expiry(timeout: f64, now: f64) -> f64 {
    cache::file_expiry(timeout, now)
}

#[pyfunction]
pub(super) fn database_expires(timeout: f64, now: f64) -> i64 {
    cache::database_expires(timeout, now)
}
