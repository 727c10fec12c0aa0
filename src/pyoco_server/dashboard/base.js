// Where the server is: two folders above the page's own files, whatever path a proxy has put before them.

/** The path that all of the server's paths begin with, such as "/pyoco"; empty where there is none. */
export const BASE = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
