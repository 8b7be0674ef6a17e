//! A pretend Trakt and `MyAnimeList`.
