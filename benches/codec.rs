//! The codec on sessions of real sizes, plain and as Django compresses them; the signers alone.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use django_session::codec::{Compression, Format, Serializer};
use django_session::signing::{Algorithm, TimestampSigner};
use django_session::{SecretKey, SessionCodec, SessionData};
use hmac::{Hmac, KeyInit, Mac};
use libdeflater::Decompressor;
use sha2::Sha256;

/// A login alone, a cart of 14 positions, a page of 340.
fn sessions() -> [(&'static str, SessionData); 3] {
    let mut login = SessionData::new();
    let hash = "1ac81677f15a2b3f9b352ea8bc9dbe02110d2805919aa217df55b4ddabdad772";
    for (name, value) in [
        ("_auth_user_id", "42"),
        ("_auth_user_backend", "django.contrib.auth.backends.ModelBackend"),
        ("_auth_user_hash", hash),
    ] {
        login.insert(name, value).expect("text is JSON");
    }
    let with_cart = |positions: u32| {
        let mut data = login.clone();
        let cart: Vec<_> = (0..positions)
            .map(|index| {
                serde_json::json!({
                    "sku": format!("SKU-{:05}", index * 7919 % 99_991),
                    "title": if index % 3 == 0 { "Café crème" } else { "Plain mug, blue" },
                    "quantity": index % 5 + 1,
                    "price": f64::from(index * 137 % 9000) / 100.0,
                    "gift": index % 4 == 0,
                })
            })
            .collect();
        data.insert("cart", &cart).expect("plain values are JSON");
        data
    };
    let (cart, page) = (with_cart(14), with_cart(450));
    [("login", login), ("cart", cart), ("page", page)]
}

fn codec(criterion: &mut Criterion) {
    let codec = SessionCodec::new(&SecretKey::new("a secret of the bench").expect("not empty"));
    let small = codec.clone().with_compression(Compression::Small);
    for (name, data) in sessions() {
        let json = data.to_json().expect("plain values");
        let mut group = criterion.benchmark_group(format!("{name}_{}_bytes", json.len()));
        group.throughput(Throughput::Bytes(json.len() as u64));
        group.bench_function("encode", |bencher| {
            bencher.iter(|| codec.encode(black_box(&data), 1_700_000_000).expect("plain values"));
        });
        group.bench_function("encode_small", |bencher| {
            bencher.iter(|| small.encode(black_box(&data), 1_700_000_000).expect("plain values"));
        });
        for (way, text) in [
            ("decode", codec.encode(&data, 1_700_000_000).expect("plain values")),
            ("decode_small", small.encode(&data, 1_700_000_000).expect("plain values")),
        ] {
            group.bench_function(way, |bencher| {
                bencher.iter(|| codec.decode(black_box(&text)).expect("just signed"));
            });
        }
        group.finish();
    }
}

/// Every form in which Django has stored a session, against the least that each could cost.
fn formats(criterion: &mut Criterion) {
    let key = SecretKey::new("a secret of the bench").expect("not empty");
    let [login, cart, _] = sessions();
    for (name, data) in [login, cart] {
        for format in Format::ALL {
            for serializer in [Serializer::Json, Serializer::Pickle] {
                let codec = SessionCodec::new(&key).with_format(format).with_serializer(serializer);
                let mut group = criterion.benchmark_group(format!(
                    "{}_{}_{name}",
                    format.name(),
                    serializer.name()
                ));
                let text = codec.encode(&data, 1_700_000_000).expect("plain values");
                // What was read keeps its form, so that nothing is converted on the way back.
                let read = codec.decode(&text).expect("just signed").data;
                group.bench_function("encode", |bencher| {
                    bencher.iter(|| codec.encode(black_box(&read), 1_700_000_000));
                });
                group.bench_function("decode", |bencher| {
                    bencher.iter(|| codec.decode(black_box(&text)).expect("just signed"));
                });
                group.finish();
            }
        }
        floor(criterion, name, &data);
    }
}

/// HMAC, base64 and inflation of a signed text, and nothing else.
fn floor(criterion: &mut Criterion, name: &str, data: &SessionData) {
    let codec = SessionCodec::new(&SecretKey::new("a secret of the bench").expect("not empty"));
    let text = codec.encode(data, 1_700_000_000).expect("plain values");
    let (signed, _) = text.rsplit_once(':').expect("signed");
    let (payload, _) = signed.rsplit_once(':').expect("stamped");
    let key = <Hmac<Sha256> as KeyInit>::new_from_slice(&[7; 32]).expect("any length is a key");
    let mut group = criterion.benchmark_group(format!("floor_{name}"));
    group.bench_function("hmac", |bencher| {
        bencher.iter(|| key.clone().chain_update(black_box(signed)).finalize());
    });
    let armored = payload.trim_start_matches('.');
    let decode = || base64_simd::URL_SAFE_NO_PAD.decode_to_vec(black_box(armored)).expect("base64");
    group.bench_function("base64", |bencher| bencher.iter(decode));
    if payload.starts_with('.') {
        let (stream, length) = (decode(), data.to_json().expect("plain values").len());
        let mut decompressor = Decompressor::new();
        let mut out = vec![0; length];
        group.bench_function("inflate", |bencher| {
            bencher.iter(|| decompressor.zlib_decompress(black_box(&stream), &mut out));
        });
    }
    group.finish();
}

fn signers(criterion: &mut Criterion) {
    let key = SecretKey::new("a secret of the bench").expect("not empty");
    let mut group = criterion.benchmark_group("signing");
    for algorithm in [Algorithm::Sha256, Algorithm::Sha1] {
        let signer = TimestampSigner::new(&key, "bench").with_algorithm(algorithm);
        let text = signer.sign("hello world", 1_700_000_000);
        group.bench_function(format!("sign_{}", algorithm.name()), |bencher| {
            bencher.iter(|| signer.sign(black_box("hello world"), 1_700_000_000));
        });
        group.bench_function(format!("unsign_{}", algorithm.name()), |bencher| {
            bencher.iter(|| signer.unsign(black_box(&text), None).map(|found| found.signed_at));
        });
    }
    group.bench_function("new", |bencher| {
        bencher.iter(|| TimestampSigner::new(black_box(&key), "bench"));
    });
    group.finish();
}

criterion_group!(benches, codec, formats, signers);
criterion_main!(benches);
