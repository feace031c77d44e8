// A service worker that gives the page's files the headers with which browsers allow threads to share memory.
// It keeps nothing: each file comes from where it always does.

addEventListener("install", () => self.skipWaiting());
addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
addEventListener("fetch", (event) => {
  const { origin } = new URL(event.request.url);
  if (origin === self.location.origin) event.respondWith(isolated(event.request));
});

async function isolated(request) {
  const answer = await fetch(request);
  if (!answer.body) return answer;
  const headers = new Headers(answer.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}
