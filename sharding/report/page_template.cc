#include "sharding/report/page_template.h"

namespace serrate {

const char* const kPlanPageTemplate = R"page(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sharding plan</title>
<style>
@STYLE@
</style>
</head>
<body>
<main>
<header>
  <div><h1>Sharding plan</h1><p class="soft" id="subtitle"></p></div>
  <button id="theme" type="button">Dark</button>
</header>
<noscript><pre>@SUMMARY@</pre></noscript>
<div class="cards" id="cards"></div>
<section>
  <h2>Rank × phase</h2>
  <p class="note">Time of each rank in each phase of a step. All ranks wait for the slowest (outlined);
  the critical path is the sum of the slowest.</p>
  <div class="scroll" id="phases"></div>
</section>
<section>
  <h2>Rank × memory</h2>
  <p class="note">What the tables take, as a share of what they may use on each rank.</p>
  <div class="scroll" id="memory"></div>
</section>
<section>
  <h2>Sharding types</h2>
  <div class="scroll"><table id="types"></table></div>
</section>
<section>
  <h2>Tables</h2>
  <p class="note" id="explained"></p>
  <div class="tools">
    <input id="filter" type="search" placeholder="Filter by name" aria-label="Filter tables by name">
    <select id="type" aria-label="Sharding type"><option value="">All sharding types</option></select>
    <span class="soft" id="count"></span>
  </div>
  <div class="scroll"><table id="tables"></table></div>
  <button id="more" type="button" style="margin-top:10px">Show more</button>
</section>
<section><details><summary>Summary as text</summary><pre>@SUMMARY@</pre></details></section>
<footer id="footer"></footer>
</main>
<div id="tip"></div>
<script type="application/json" id="data">@DATA@</script>
<script>
@SCRIPT@
</script>
</body>
</html>
)page";

}  // namespace serrate
