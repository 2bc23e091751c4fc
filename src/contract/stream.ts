/** Numbers of the stream sockets that client and daemon share, apart from the schemas, which a short-lived client does not load. */

/** Channel byte of binary stream messages. */
export const STREAM_CHANNELS = { stdin: 0, stdout: 1, stderr: 2 } as const;

/** Most bytes of standard input that a client sends ahead of the daemon's acknowledgement. */
export const STDIN_WINDOW_BYTES = 1 << 20;
