// The words of the page in both languages; a test compares their keys.
const en = {
  skip: 'Skip to the content', try: 'Try it', catalogue: 'Catalogue', health: 'Health', models: 'Models', data: 'Data', light: 'Light', dark: 'Dark', auto: 'Auto', theme: 'Appearance: {0}', other: '中文',
  bundle: 'Bundle', door: 'API key', enter: 'Enter', doorWords: 'This service needs a key. Make one: tastemaker keys add DIR --scope admin. It is kept until this tab is closed.', needAdmin: 'This needs a key with the scope admin.',
  close: 'Close', cancel: 'Cancel', failed: 'That did not work', again: 'Try again', loading: 'Loading…', ms: 'ms', unreachable: 'The service can’t be reached. Is it still running?',
  who: 'Who', whoHint: 'Pick a user or write any id', newcomer: 'New visitor', visitor: 'a visitor whom nobody knows', history: 'Latest events', noHistory: 'Nothing is known of this person yet: popular and fresh items are shown.',
  session: 'This session', sessionEmpty: 'Click items: the list changes at once. Nothing is stored.', clear: 'Clear', store: 'Store my clicks as events', stored: 'Stored; every worker knows it.',
  search: 'Search', searchHint: 'Search by words or meaning', recommended: 'Recommended for {0}', found: 'Found for “{0}”', nothing: 'Nothing was found.', click: 'Click', why: 'Why this', whyNot: 'Why not…', whyNotHint: 'Which item do you miss in the list?',
  answered: '{0} items in {1} ms', degraded: 'Degraded: {0}', place: 'Place {0} of {1}', notListed: 'Not in the list of {0}', movedBy: '{0}: from place {1} to {2}',
  outranked: 'Others stand higher.', effects: 'What moves the ranker most', stoppedAt: '{0}: {1}.', stoodAt: 'It stood at {0} of {1}.', stage_filter: 'Left out', stage_source: 'Not found', stage_score: 'Outranked', stage_select: 'Left out by a rule', sources: 'Where it comes from', chances: 'Chances', features: 'Features at this moment', moves: 'What the rules did', rank: 'rank {0}',
  add: 'Add an item', title: 'Title', text: 'Text', categories: 'Categories, by commas', price: 'Price', image: 'Address of a picture', put: 'Add', added: 'Added and offered to {0} of {1} users, {2} s later.', audience: 'Who would get it', nobody: 'Nobody, of {0} users looked at: others suit them better, or they have it already.', ofUsers: 'of {0} users looked at',
  similar: 'Similar items', remove: 'Delete', removed: 'Deleted.', removeAsk: 'Delete “{0}”? It disappears from all lists at once.', choose: 'Choose an item to see it here.', items: 'Items', hidden: 'hidden',
  rate: 'Requests / s', errors: 'Errors', p50: 'Median', p99: 'p99', events: 'Events / s', index: 'Items in the index', overTime: 'Requests a second', latency: 'Time to answer, ms', routes: 'By route', route: 'Route', status: 'Status', count: 'Count', share: 'Share',
  watching: 'Figures of all workers, every two seconds, since this page was opened.', alerts: 'Alerts', noAlerts: 'No alert.', runbook: 'What to do', figures: 'All figures', quiet: 'No requests since this page was opened.', degradedShare: 'Degraded', lag: 'Lag of events, s', drift: 'Drift', quality: 'What people take', bySource: 'Share taken, by source (sampled)', ratios: 'Shares', threshold: 'threshold', firing: 'firing', figure: 'Figure', value: 'Value',
  stages: 'Stages', stage: 'Stage', none: 'none', candidate: 'Candidate', shadow: 'Shadow', canary: 'Canary', live: 'Live', previous: 'Previous', release: 'Release', rollback: 'Roll back', releaseAsk: 'Make {0} live? All workers change to it at once; the one that is live now stays as the previous one.', rollbackAsk: 'Make {0} live again?', anyway: 'Release all the same', released: '{0} is live.', record: 'Record of releases', examining: 'The gates are asked: this takes some seconds.',
  inStages: 'In stages', inStagesAsk: 'Put {0} on trial? It makes 1,000 lists that nobody sees, then answers 1, 5 and 25 % of the users, then all. It is ended by itself if it fails, is slow, or less is taken.', onTrial: 'On trial', refresh: 'Refresh', endTrial: 'End the trial', endTrialAsk: 'End the trial of {0}? {1} answers everybody again.', begun: '{0} is on trial.', trialLists: '{0} of {1} lists of this stage', trialWaits: 'It waits for requests.', aborted: 'Ended',
  version: 'Version', made: 'Made', from: 'from {0}', size: 'Size', bundles: 'Bundles', evaluation: 'Evaluation', noEvaluation: 'Not evaluated yet: tastemaker evaluate DIR', compression: 'Compression', noCompression: 'Not compressed yet: tastemaker compress DIR', step: 'Step', verdict: 'Verdict', change: 'NDCG@10', accepted: 'accepted', refused: 'refused', texts: 'Texts / s', damaged: 'damaged',
  reports: 'Reports', noReports: 'No report yet: tastemaker profile DIR', made_: 'made {0}', profile: 'Data profile', report: 'Evaluation', import: 'Import',
};
const zh = {
  skip: '跳到内容', try: '试用', catalogue: '商品目录', health: '运行状况', models: '模型', data: '数据', light: '浅色', dark: '深色', auto: '自动', theme: '外观：{0}', other: 'English',
  bundle: '模型包', door: 'API 密钥', enter: '进入', doorWords: '此服务需要密钥。创建：tastemaker keys add DIR --scope admin。密钥保留到关闭此标签页为止。', needAdmin: '此操作需要 admin 权限的密钥。',
  close: '关闭', cancel: '取消', failed: '操作未成功', again: '重试', loading: '加载中…', ms: '毫秒', unreachable: '无法连接服务，它还在运行吗？',
  who: '用户', whoHint: '选择用户或输入任意编号', newcomer: '新访客', visitor: '一位陌生访客', history: '最近事件', noHistory: '对此人一无所知：显示热门与新品。',
  session: '本次会话', sessionEmpty: '点击物品，列表立即变化；不会保存任何内容。', clear: '清空', store: '把点击保存为事件', stored: '已保存，所有进程都已知晓。',
  search: '搜索', searchHint: '按词或语义搜索', recommended: '为 {0} 推荐', found: '“{0}”的搜索结果', nothing: '没有找到。', click: '点击', why: '为什么推荐', whyNot: '为什么没有…', whyNotHint: '你在列表里没看到哪个物品？',
  answered: '{0} 个物品，{1} 毫秒', degraded: '已降级：{0}', place: '第 {0} 位，共 {1} 位', notListed: '不在前 {0} 位中', movedBy: '{0}：从第 {1} 位到第 {2} 位',
  outranked: '其他物品排名更高。', effects: '对排序影响最大的特征', stoppedAt: '{0}：{1}。', stoodAt: '排在 {1} 个中的第 {0} 位。', stage_filter: '被过滤', stage_source: '未召回', stage_score: '得分较低', stage_select: '被规则排除', sources: '来源', chances: '概率', features: '此刻的特征', moves: '规则的作用', rank: '第 {0} 名',
  add: '添加物品', title: '标题', text: '描述', categories: '类别（逗号分隔）', price: '价格', image: '图片地址', put: '添加', added: '已添加，{2} 秒后已推荐给 {1} 位用户中的 {0} 位。', audience: '谁会看到它', nobody: '在查看的 {0} 位用户中没有人：其他物品更合适，或他们已经有了。', ofUsers: '共查看 {0} 位用户',
  similar: '相似物品', remove: '删除', removed: '已删除。', removeAsk: '删除“{0}”？它会立即从所有列表中消失。', choose: '选择一个物品查看详情。', items: '物品', hidden: '已隐藏',
  rate: '每秒请求', errors: '错误', p50: '中位数', p99: 'p99', events: '每秒事件', index: '索引中的物品', overTime: '每秒请求数', latency: '应答时间（毫秒）', routes: '按接口', route: '接口', status: '状态', count: '次数', share: '占比',
  watching: '所有进程的数据，每两秒更新，自打开本页起。', alerts: '告警', noAlerts: '没有告警。', runbook: '处理方法', figures: '全部指标', quiet: '打开本页以来没有请求。', degradedShare: '降级占比', lag: '事件延迟（秒）', drift: '漂移', quality: '用户的选择', bySource: '各来源的点击率（抽样）', ratios: '各项占比', threshold: '阈值', firing: '触发中', figure: '指标', value: '数值',
  stages: '阶段', stage: '阶段', none: '无', candidate: '候选', shadow: '影子', canary: '灰度', live: '线上', previous: '上一个', release: '发布', rollback: '回滚', releaseAsk: '发布 {0}？所有进程立即切换；当前线上的包保留为上一个。', rollbackAsk: '重新上线 {0}？', anyway: '仍然发布', released: '{0} 已上线。', record: '发布记录', examining: '正在检查各项门槛，需要几秒钟。',
  inStages: '分阶段发布', inStagesAsk: '开始试运行 {0}？先在后台生成 1,000 个无人看到的列表，然后依次服务 1%、5%、25% 的用户，最后是全部用户。如果出错、变慢或点击减少，会自动终止。', onTrial: '试运行中', refresh: '刷新', endTrial: '终止试运行', endTrialAsk: '终止 {0} 的试运行？{1} 将重新服务所有用户。', begun: '{0} 开始试运行。', trialLists: '本阶段 {0} / {1} 个列表', trialWaits: '等待请求。', aborted: '已终止',
  version: '版本', made: '创建时间', from: '源自 {0}', size: '大小', bundles: '模型包', evaluation: '评估', noEvaluation: '尚未评估：tastemaker evaluate DIR', compression: '压缩', noCompression: '尚未压缩：tastemaker compress DIR', step: '步骤', verdict: '结论', change: 'NDCG@10', accepted: '已接受', refused: '已拒绝', texts: '每秒文本', damaged: '已损坏',
  reports: '报告', noReports: '还没有报告：tastemaker profile DIR', made_: '创建于 {0}', profile: '数据概况', report: '评估', import: '导入',
};
export const words = { en, zh };
let language = localStorage.language || (navigator.language.startsWith('zh') ? 'zh' : 'en');
export const speaks = () => language;
export const speak = next => { language = next; localStorage.language = next; };
// The sentence of a key, with its blanks filled.
export const t = (key, ...fill) => (words[language][key] ?? key).replace(/\{(\d)\}/g, (_, at) => fill[at]);
