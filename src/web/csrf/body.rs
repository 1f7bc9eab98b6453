//! A body of which the beginning has been read, and is there again for the handler.

use std::fmt;
use std::future::poll_fn;
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body that [`CsrfLayer`](super::CsrfLayer) hands on: byte for byte that of the request, errors
    /// and trailers included.
    pub struct CsrfBody<B>
    where
        B: Body,
    {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<B>
    where
        B: Body,
    {
        Untouched { #[pin] body: B },
        Begun { begun: Begun<B> },
    }
}

/// What has been read, and what is still to come.
pub(super) struct Begun<B: Body> {
    /// Of no more bytes than the limit.
    prefix: Bytes,
    /// What came in the same piece and went beyond.
    beyond: Bytes,
    end: End<B::Error>,
    rest: Pin<Box<B>>,
}

enum End<E> {
    /// There is more.
    Open,
    /// It ended with this, which is still to be passed on.
    Last(Result<Frame<Bytes>, E>),
    Over,
}

impl<B: Body> Begun<B> {
    /// Reads until more than `limit` bytes have come, or the end.
    pub(super) async fn read(body: B, limit: usize) -> Self {
        let mut rest = Box::pin(body);
        let mut prefix = Vec::new();
        let mut beyond = Bytes::new();
        let mut end = End::Open;
        while beyond.is_empty() && matches!(end, End::Open) {
            match poll_fn(|cx| rest.as_mut().poll_frame(cx)).await {
                None => end = End::Over,
                Some(Err(error)) => end = End::Last(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut data) => {
                        // The one piece that most forms come in is not copied.
                        let mut piece = data.copy_to_bytes(data.remaining());
                        let fits = piece.len().min(limit - prefix.len());
                        beyond = piece.split_off(fits);
                        if prefix.is_empty() && rest.is_end_stream() && beyond.is_empty() {
                            let end = End::Over;
                            return Self { prefix: piece, beyond, end, rest };
                        }
                        prefix.extend_from_slice(&piece);
                    }
                    // Trailers end a body.
                    Err(frame) => {
                        end = match frame.into_trailers() {
                            Ok(trailers) => End::Last(Ok(Frame::trailers(trailers))),
                            Err(_) => End::Open,
                        };
                    }
                },
            }
        }
        Self { prefix: prefix.into(), beyond, end, rest }
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Whether the prefix is all.
    pub(super) fn is_whole(&self) -> bool {
        self.beyond.is_empty() && !matches!(self.end, End::Open)
    }

    /// Whether the client went away (Django's `UnreadablePostError`).
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.end, End::Last(Err(_)))
    }
}

impl<B: Body> CsrfBody<B> {
    pub(super) fn untouched(body: B) -> Self {
        Self { state: State::Untouched { body } }
    }

    pub(super) fn begun(begun: Begun<B>) -> Self {
        Self { state: State::Begun { begun } }
    }

    /// The body of the request itself, if nothing of it has been read.
    #[cfg(feature = "actix")]
    pub(in crate::web) fn into_untouched(self) -> Result<B, Box<Self>> {
        match self.state {
            State::Untouched { body } => Ok(body),
            state @ State::Begun { .. } => Err(Box::new(Self { state })),
        }
    }
}

impl<B: Body> Body for CsrfBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = match self.project().state.project() {
            StateProjection::Untouched { body } => ready!(body.poll_frame(cx)),
            StateProjection::Begun { begun } => {
                for piece in [&mut begun.prefix, &mut begun.beyond] {
                    if !piece.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(take(piece)))));
                    }
                }
                match begun.end {
                    End::Open => ready!(begun.rest.as_mut().poll_frame(cx)),
                    End::Over => None,
                    End::Last(_) => {
                        let End::Last(last) = std::mem::replace(&mut begun.end, End::Over) else {
                            return Poll::Ready(None);
                        };
                        return Poll::Ready(Some(last));
                    }
                }
            }
        };
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Untouched { body } => body.is_end_stream(),
            State::Begun { begun } => {
                begun.prefix.is_empty()
                    && begun.beyond.is_empty()
                    && match begun.end {
                        End::Open => begun.rest.is_end_stream(),
                        End::Last(_) => false,
                        End::Over => true,
                    }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Untouched { body } => body.size_hint(),
            State::Begun { begun } => {
                let rest = match begun.end {
                    End::Open => begun.rest.size_hint(),
                    End::Last(_) | End::Over => SizeHint::with_exact(0),
                };
                let read = (begun.prefix.len() as u64).saturating_add(begun.beyond.len() as u64);
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(read));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
                    hint.set_upper(upper);
                }
                hint
            }
        }
    }
}

/// Shows nothing of what a form says.
impl<B: Body> fmt::Debug for CsrfBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfBody").finish_non_exhaustive()
    }
}
