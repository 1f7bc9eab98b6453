//! A connection that can be counted and broken: a TCP proxy before a real server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are passed on.
    Pass,
    /// Once the next request is sent, the answer is cut off after so many bytes, and the connection
    /// with it. Then they are passed on again.
    CutAnswer(usize),
    /// As `CutAnswer(0)`, after so many requests that are answered.
    CutLaterAnswer(usize),
    /// As `CutRequest`, after so many requests that are answered.
    CutLaterRequest(usize),
    /// The next request breaks the connection, and no byte of it is sent. Then they are passed on again.
    CutRequest,
    /// They are kept back.
    Swallow,
    /// As `Swallow`, after so many requests that are answered.
    SwallowLater(usize),
    /// Pings alone are kept back.
    SwallowPings,
}

pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

/// How sqlx's pool looks after a connection that it gets back, on PostgreSQL and on MySQL: nobody waits
/// for it.
const PINGS: [&[u8]; 2] = [b"S\0\0\0\x04", b"\x01\0\0\0\x0e"];

struct Shared {
    mode: Mutex<Mode>,
    /// How often the client has spoken after the server, other than to ask whether it is there.
    turns: AtomicUsize,
    connections: AtomicUsize,
    /// How often it has asked.
    pings: AtomicUsize,
    /// Counted up when all connections are to be cut.
    cut: watch::Sender<u32>,
    /// Whether the connections are forgotten that were made since the last time.
    forgotten: Mutex<watch::Sender<bool>>,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let shared = Arc::new(Shared {
            mode: Mode::Pass.into(),
            turns: 0.into(),
            connections: 0.into(),
            pings: 0.into(),
            cut: watch::Sender::new(0),
            forgotten: watch::Sender::new(false).into(),
        });
        let proxy = Self { port: listener.local_addr().unwrap().port(), shared };
        let shared = Arc::clone(&proxy.shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, port, Arc::clone(&shared)));
            }
        });
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.shared.mode.lock().unwrap()
    }

    /// Cuts all connections. New ones are accepted.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }

    /// Keeps back what is sent by all connections there are, as a firewall does that has forgotten them.
    /// New ones are not concerned.
    pub(crate) fn forget(&self) {
        let new = watch::Sender::new(false);
        std::mem::replace(&mut *self.shared.forgotten.lock().unwrap(), new).send_replace(true);
    }

    pub(crate) fn turns(&self) -> usize {
        self.shared.turns.load(Ordering::SeqCst)
    }

    pub(crate) fn pings(&self) -> usize {
        self.shared.pings.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn carry(mut client: TcpStream, port: u16, shared: Arc<Shared>) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut server) = TcpStream::connect(address).await else { return };
    let mut cut = shared.cut.subscribe();
    let forgotten = shared.forgotten.lock().unwrap().subscribe();
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    let mut server_spoke = true;
    // How many bytes of the answer there may still be.
    let mut left = None;
    // What is to be done with a request, and from then on with the next one.
    let take = || {
        let mut mode = shared.mode.lock().unwrap();
        let (now, next) = match *mode {
            Mode::CutLaterAnswer(0) => (Mode::CutAnswer(0), Mode::Pass),
            Mode::CutLaterAnswer(after) => (Mode::Pass, Mode::CutLaterAnswer(after - 1)),
            Mode::CutLaterRequest(0) => (Mode::CutRequest, Mode::Pass),
            Mode::CutLaterRequest(after) => (Mode::Pass, Mode::CutLaterRequest(after - 1)),
            Mode::SwallowLater(0) => (Mode::Swallow, Mode::Swallow),
            Mode::SwallowLater(after) => (Mode::Pass, Mode::SwallowLater(after - 1)),
            Mode::CutAnswer(_) | Mode::CutRequest => (*mode, Mode::Pass),
            Mode::Pass | Mode::Swallow | Mode::SwallowPings => (*mode, *mode),
        };
        *mode = next;
        now
    };
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { break };
                let is_ping = PINGS.contains(&&from_client[..count]);
                if is_ping {
                    shared.pings.fetch_add(1, Ordering::SeqCst);
                }
                if std::mem::take(&mut server_spoke) && !is_ping {
                    shared.turns.fetch_add(1, Ordering::SeqCst);
                }
                let mode = *shared.mode.lock().unwrap();
                let swallowed = *forgotten.borrow()
                    || mode == Mode::Swallow
                    || is_ping && mode == Mode::SwallowPings;
                if swallowed {
                    continue;
                }
                // Nobody waits for a ping, so that breaking one would show nothing.
                match if is_ping { Mode::Pass } else { take() } {
                    Mode::CutRequest => break,
                    Mode::Swallow => continue,
                    Mode::CutAnswer(bytes) => left = Some(bytes),
                    _ => {}
                }
                if server.write_all(&from_client[..count]).await.is_err() {
                    break;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { break };
                server_spoke = true;
                let passed = left.map_or(count, |left: usize| left.min(count));
                if client.write_all(&from_server[..passed]).await.is_err() || left.is_some() {
                    break;
                }
            }
            _ = cut.changed() => break,
        }
    }
    // The other side is to see a reset.
    let _ = client.set_zero_linger();
}
