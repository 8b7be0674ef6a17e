//! A receiver of messages on loopback, which keeps what it got.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::PATIENCE;

/// What a receiver does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// Sends elsewhere.
    Redirect(u16),
    /// Reads, and never answers.
    Never,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Got {
    /// Method and path.
    pub line: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Got {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

type Inbox = Arc<(Mutex<Vec<Got>>, Condvar)>;

/// A receiver.
pub struct Receiver {
    port: u16,
    answer: Arc<Mutex<Answer>>,
    inbox: Inbox,
}

impl Receiver {
    /// Listens, and answers each request like that.
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inbox = Inbox::default();
        let answer = Arc::new(Mutex::new(answer));
        let (shared, answers) = (Arc::clone(&inbox), Arc::clone(&answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let inbox = Arc::clone(&shared);
                let answer = *answers.lock().unwrap();
                std::thread::spawn(move || serve(stream, answer, &inbox));
            }
        });
        Self { port, answer, inbox }
    }

    /// Answers like that from now on.
    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for so many requests.
    pub fn wait(&self, count: usize) -> Vec<Got> {
        let end = Instant::now() + PATIENCE;
        let mut all = self.inbox.0.lock().unwrap();
        while all.len() < count {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "only {} requests came: {all:#?}", all.len());
            all = self.inbox.1.wait_timeout(all, left).unwrap().0;
        }
        all.clone()
    }

    /// What came so far.
    pub fn got(&self) -> Vec<Got> {
        self.inbox.0.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answer: Answer, inbox: &Inbox) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or_default();
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let got = Got { line, headers, body: String::from_utf8(body).unwrap() };
    inbox.0.lock().unwrap().push(got);
    inbox.1.notify_all();
    let head = match answer {
        Answer::Status(status) => format!("HTTP/1.1 {status} x\r\n"),
        Answer::Redirect(port) => format!("HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:{port}/\r\n"),
        Answer::Never => {
            // Until the other side gives up.
            let _ = stream.read(&mut [0; 1]);
            return;
        }
    };
    let _ = stream.write_all(format!("{head}content-length: 0\r\nconnection: close\r\n\r\n").as_bytes());
}
