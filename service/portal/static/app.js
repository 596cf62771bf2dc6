// What all modules share: the session's token, fragments of pages, and putting them in place.

const meta = document.querySelector('meta[name="csrf"]');
export const token = meta ? meta.content : "";

/** Fetch a fragment of a page; gives its elements and whether the service agreed. */
export async function fragment(path, options = {}) {
  const headers = { "Domicile-Fragment": "true", ...(options.headers || {}) };
  if (options.method && options.method !== "GET") headers["X-CSRF-Token"] = token;
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { ok: false, status: 0, elements: [unreachable()] };
  }
  return { ok: reply.ok, status: reply.status, elements: elementsOf(await reply.text()) };
}

/** Turn text from the service into elements; scripts in it would not run, and there are none. */
export function elementsOf(text) {
  return [...new DOMParser().parseFromString(text, "text/html").body.children];
}

/** Say that the service did not answer, and what to do. */
export function unreachable() {
  const box = document.createElement("div");
  box.className = "notice bad";
  box.setAttribute("role", "alert");
  const line = document.createElement("p");
  line.textContent = "The service does not answer. Check the connection, then try again.";
  box.append(line);
  return box;
}

/** Say something to those who do not see the page. */
export function announce(text) {
  const place = document.getElementById("announce");
  if (place) place.textContent = text;
}

document.documentElement.classList.add("scripted");
