//! A process that is killed by `kill -9` while it saves: the session is whole, and has what was acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use django_session::store::connect;
use django_session::{Session, SessionData, SessionKey, SessionStore};

use crate::stores::{Place, now, record, server, settings};

const ROUNDS: u64 = 20;
/// So many names have one value, and there is more than a packet of them.
const NAMES: u64 = 300;

fn all(number: u64) -> SessionData {
    let mut data = SessionData::new();
    for name in 0..NAMES {
        data.insert(&format!("name{name}"), &number).unwrap();
    }
    data
}

/// Every store that another process can reach, as a name and an address.
async fn places() -> (Vec<Place>, Vec<(String, String)>) {
    let places = Place::all().await;
    let mut urls = Vec::new();
    for place in &places {
        let joint = if place.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{joint}table={}", place.url, place.table);
        urls.push((format!("SqlStore, {:?}", place.kind), url));
    }
    for (name, variable) in [("Redis", "TEST_REDIS_URL"), ("memcached", "TEST_MEMCACHED_URL")] {
        urls.extend(server(variable).map(|url| (name.to_owned(), url)));
    }
    (places, urls)
}

#[tokio::test]
async fn a_writer_that_is_killed_loses_nothing_that_was_acknowledged() {
    let (_places, urls) = places().await;
    for (name, url) in urls {
        let store = connect(&url, &settings()).await.unwrap();
        let mut made = record(now());
        made.data = Arc::new(all(0));
        store.create(&made).await.unwrap();
        let (mut acknowledged, mut unacknowledged) = (0, 0);
        for round in 0..ROUNDS {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["killed_writer::other_process_saves", "--exact", "--ignored", "--nocapture"])
                .env("KILLED_WRITER_URL", &url)
                .env("KILLED_WRITER_KEY", made.session_key.as_str())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut saved = lines.filter_map(|line| {
                line.unwrap().strip_prefix("saved ").map(|number| number.parse::<u64>().unwrap())
            });
            // It is at work; from here on it can be hit anywhere in a save.
            let first = saved.next().expect("it saves");
            assert_eq!(first, acknowledged + unacknowledged + 1, "{name}");
            std::thread::sleep(Duration::from_micros(round * 1_913 % 20_000));
            child.kill().unwrap();
            acknowledged = saved.last().unwrap_or(first);
            child.wait().unwrap();

            let found = store.load(&made.session_key, now()).await.unwrap().expect("it is there");
            let number = found.data.get::<u64>("name0").unwrap().unwrap();
            let mut whole = all(number);
            // What the parent has added before.
            if round > 0 {
                whole.insert("parent", &(round - 1)).unwrap();
            }
            assert_eq!(*found.data, whole, "{name}: it is whole");
            assert!(number >= acknowledged, "{name}: {acknowledged} was acknowledged");
            assert!(number <= acknowledged + 1, "{name}: no more was sent");

            // The store works, whatever the process held.
            let key = Some(made.session_key.clone());
            let session = Session::new(Arc::clone(&store), Arc::new(settings()), key);
            session.insert("parent", &round).await.unwrap();
            session.save().await.unwrap();
            let found = store.load(&made.session_key, now()).await.unwrap().unwrap();
            let number = found.data.get::<u64>("name0").unwrap().unwrap();
            unacknowledged = number - acknowledged;
        }
        eprintln!("{name}: killed {ROUNDS} times, {acknowledged} saves; always whole, none lost");
        store.delete(&made.session_key).await.unwrap();
    }
}

/// Counts up until it is killed.
#[tokio::test]
#[ignore = "it is a process of another test"]
async fn other_process_saves() {
    let url = std::env::var("KILLED_WRITER_URL").expect("it is started by a test");
    let key = SessionKey::parse(&std::env::var("KILLED_WRITER_KEY").unwrap()).unwrap();
    let store = connect(&url, &settings()).await.unwrap();
    let settings = Arc::new(settings());
    loop {
        let session = Session::new(Arc::clone(&store), Arc::clone(&settings), Some(key.clone()));
        let number = session.get::<u64>("name0").await.unwrap().unwrap() + 1;
        session.update(&all(number)).await.unwrap();
        session.save().await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "saved {number}").unwrap();
        out.flush().unwrap();
    }
}
