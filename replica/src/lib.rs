//! A node: many replicated groups, the metadata, and the client-facing API.
