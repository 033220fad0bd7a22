// Post the token in the URL's fragment, which browsers never send to a server, and remove it from the history.
"use strict";
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const alreadyRefused = document.querySelector("[role=alert]");
if (token && !alreadyRefused) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = token;
  document.getElementById("login").submit();
}
