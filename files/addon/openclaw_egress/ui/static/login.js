// Post the token of the address's fragment, which the browser sends to no server, and remove it from the history.
"use strict";
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const alreadyRefused = document.querySelector("[role=alert]");
if (token && !alreadyRefused) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = token;
  document.getElementById("login").submit();
}
