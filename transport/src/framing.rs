//! Frames on QUIC streams. Length first, then checksum, then meaning.

use bytes::Bytes;
use quinn::{ReadExactError, RecvStream, SendStream};
use varve_protocol::frame::{FRAME_HEADER_SIZE, Frame, IncomingHeader};
use varve_protocol::version::Version;

use crate::error::TransportError;
use crate::queue::QueueReceiver;

/// Frames written in one go.
const FRAMES_PER_WRITE_MAX: usize = 64;

/// Reads the next frame; `None` when the stream ends between two frames.
pub(crate) async fn read_frame(stream: &mut RecvStream) -> Result<Option<Frame>, TransportError> {
    let mut header = [0; FRAME_HEADER_SIZE];
    match stream.read_exact(&mut header).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(TransportError::Broken(error.to_string())),
    }
    let header = IncomingHeader::decode(&header)?;
    let body = read_body(stream, header.body_size()).await?;
    Ok(Some(header.with_body(body)?))
}

/// Reads so many bytes. They are copied out of the datagrams they came in, so that a small frame that is kept does not keep a large
/// datagram.
async fn read_body(stream: &mut RecvStream, size: usize) -> Result<Bytes, TransportError> {
    let mut body = Vec::with_capacity(size);
    while body.len() < size {
        match stream.read_chunk(size - body.len(), true).await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(TransportError::Broken("the stream ended within a frame".into())),
            Err(error) => return Err(TransportError::Broken(error.to_string())),
        }
    }
    Ok(Bytes::from(body))
}

/// Writes one frame.
pub(crate) async fn write_frame(stream: &mut SendStream, frame: &Frame) -> Result<(), TransportError> {
    write_chunks(stream, frame.encode()).await
}

/// Writes what comes out of a queue until the queue or the stream ends; in a version, if one is given.
pub(crate) async fn write_queue(
    stream: &mut SendStream,
    queue: &mut QueueReceiver,
    version: Option<Version>,
) -> Result<(), TransportError> {
    loop {
        let mut frames = queue.take(FRAMES_PER_WRITE_MAX).await;
        if frames.is_empty() {
            return Ok(());
        }
        if let Some(version) = version {
            frames.iter_mut().for_each(|frame| frame.header.version = version);
        }
        write_chunks(stream, frames.iter().flat_map(Frame::encode).collect()).await?;
    }
}

async fn write_chunks(stream: &mut SendStream, mut chunks: Vec<Bytes>) -> Result<(), TransportError> {
    stream.write_all_chunks(&mut chunks).await.map_err(|error| TransportError::Broken(error.to_string()))
}
